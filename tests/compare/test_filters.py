"""Which runs `--filter` and `--exclude` leave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bclightning.compare.filters import FIELDS, Condition, select_runs
from bclightning.compare.loading import FoundRun
from bclightning.errors import UserError
from bclightning.runs.record import RunRecord

RUNS = [
    FoundRun(
        RunRecord(
            f"{regularizer}-s{seed}",
            "e",
            regularizer,
            "digits",
            seed,
            epochs=10 * seed,
            started=f"2026-01-{seed:02}T00:00:00",
            hyperparameters={"model.learning_rate": seed / 1000, "model.scale": seed == 2},
        ),
        None,
    )
    for regularizer in ("none", "stochastic")
    for seed in (1, 2, 11)
]


def left(*conditions, exclude=()) -> list[str]:
    kept, _ = select_runs(RUNS, conditions, exclude)
    return [run.record.run_id for run in kept]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("regularizer=stochastic", ["stochastic-s1", "stochastic-s2", "stochastic-s11"]),
        ("regularizer!=stochastic", ["none-s1", "none-s2", "none-s11"]),
        ("arm = stoch*", ["stochastic-s1", "stochastic-s2", "stochastic-s11"]),
        # As text, 11 would lie before 2.
        ("seed>2", ["none-s11", "stochastic-s11"]),
        ("seed<=1", ["none-s1", "stochastic-s1"]),
        ("epochs>=110", ["none-s11", "stochastic-s11"]),
        ("learning_rate=0.0020", ["none-s2", "stochastic-s2"]),
        ("model.learning_rate<0.002", ["none-s1", "stochastic-s1"]),
        ("scale=true", ["none-s2", "stochastic-s2"]),
        ("started<2026-01-02", ["none-s1", "stochastic-s1"]),
        ("run_id=*-s1", ["none-s1", "stochastic-s1"]),
    ],
)
def test_conditions(condition, expected):
    assert left(condition) == expected


def test_all_conditions_hold_and_what_is_left_out_is_said():
    assert left("regularizer=none", "seed>1", exclude=["none-s2"]) == ["none-s11"]
    _, notes = select_runs(RUNS, ["regularizer=none", "seed>1"], ["none-s2"])
    assert notes == [
        "Left out by --filter regularizer=none: 3 runs.",
        "Left out by --filter seed>1: 1 run.",
        "Left out by --exclude: none-s2.",
    ]
    assert select_runs(RUNS) == (RUNS, [])
    # A best value that no run has is met by none.
    with pytest.raises(UserError, match=r"no run meets --filter best_score<5$"):
        left("best_score<5")


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("regularizer", "--filter 'regularizer' is not a condition; write FIELD=VALUE, !=, <"),
        ("=3", "--filter '=3' is not a condition"),
        (
            "regulariser=none",
            r"knows no 'regulariser' \(did you mean regularizer\?\); there are run",
        ),
        ("regularizer=stochstic", "no run meets .*; the runs have none, stochastic$"),
    ],
)
def test_a_mistake_is_one_sentence(condition, said):
    with pytest.raises(UserError, match=said):
        left(condition)


def test_a_name_that_is_of_no_run_is_not_passed_over():
    with pytest.raises(UserError, match=r"--exclude none-s3: .* \(did you mean none-s2\?\)"):
        left(exclude=["none-s3"])
    with pytest.raises(UserError, match="--exclude leaves no run to compare"):
        left("seed=1", exclude=["none-s1", "stochastic-s1"])


def test_a_name_of_two_hyperparameters_is_asked_for_in_full():
    two = RunRecord("a", "e", "none", "d", 1, hyperparameters={"a.rate": 1, "b.rate": 2})
    with pytest.raises(UserError, match=r"--filter rate may be a.rate or b.rate; give the whole"):
        select_runs([FoundRun(two, None)], ["rate=1"])
    assert len(select_runs([FoundRun(two, None)], ["a.rate=1"])[0]) == 1


@given(st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_signs_mean_what_they_mean_for_numbers(value, bound):
    for sign, expected in (
        *((">", value > bound), (">=", value >= bound), ("<", value < bound)),
        *(("<=", value <= bound), ("=", value == bound), ("!=", value != bound)),
    ):
        assert Condition.parse(f"seed{sign}{bound}").holds(value) is expected


@given(st.text(max_size=30))
def test_any_text_is_a_condition_or_a_sentence(text):
    try:
        condition = Condition.parse(text)
    except UserError:
        return
    assert condition.sign in str(condition)
    for value in (None, 3, 2.5, True, "x", []):
        condition.holds(value)


def test_every_field_is_there():
    for field in FIELDS:
        assert select_runs(RUNS, [f"{field}!=nothing at all"])[0] == RUNS
