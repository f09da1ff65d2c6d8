"""Who is taken for dead: by signs that stopped, and never by a clock that was set."""

from hypothesis import given
from hypothesis import strategies as st

from bclightning.sweep.liveness import MISSED_SIGNS, Watch

INTERVAL = 10.0


def watched(looks):
    """Look with a clock that shows the given times; the signs are those of one trial."""
    times = iter([time for time, _ in looks])
    watch = Watch(INTERVAL, clock=lambda: next(times))
    return [bool(watch.look({7: sign})) for _, sign in looks]


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_whoever_gives_another_sign_before_each_look_lives(pauses):
    time, looks = 0.0, []
    for number, pause in enumerate(pauses):
        time += pause
        looks.append((time, f"sign {number}"))
    assert not any(watched(looks))


@given(st.lists(st.floats(0.1, INTERVAL), min_size=1, max_size=60))
def test_whoever_is_silent_for_three_intervals_is_dead(pauses):
    times = [sum(pauses[:count]) for count in range(len(pauses) + 1)]
    expected = [time >= MISSED_SIGNS * INTERVAL for time in times]
    found = watched([(time, "sign") for time in times])
    near = [abs(time - MISSED_SIGNS * INTERVAL) < 1e-6 for time in times]
    assert [f for f, n in zip(found, near, strict=True) if not n] == [
        e for e, n in zip(expected, near, strict=True) if not n
    ]


def test_whoever_was_frozen_itself_takes_nobody_for_dead():
    """After an hour's pause the others have had no chance to show that they live."""
    assert watched([(0, "a"), (10, "b"), (3610, "b"), (3620, "c")]) == [False] * 4


def test_a_trial_that_was_requeued_and_claimed_begins_anew():
    times = iter(range(0, 100, 10))
    watch = Watch(INTERVAL, clock=lambda: next(times))
    assert [watch.look({7: "a"}) for _ in range(4)][-1] == {7}
    # It waits, and is then claimed by another process.
    assert watch.look({}) == set()
    assert [watch.look({7: "b"}) for _ in range(3)] == [set()] * 3
