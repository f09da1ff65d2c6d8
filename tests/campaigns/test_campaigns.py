"""The campaigns run, hold for a while, and find a defence that is missing."""

import subprocess
import sys
from pathlib import Path

import pytest
from campaigns import diary, run

RUN = Path(__file__).with_name("run.py")


@pytest.mark.parametrize(
    ("lines", "again", "mixed"),
    [
        (["a 0 1", "b 0 2", "a 1 1"], [], []),
        # Process 1 was killed in the epoch that process 2 trains again.
        (["a 0 1", "a 1 1", "a 1 2", "a 2 2"], ["a 1"], []),
        (["a 0 1", "a 0 2", "a 1 1"], ["a 0"], ["a"]),
        (["a 0 1", "a 1 2", "a 2 1", "a 2 1", "a 2 1"], ["a 2", "a 2"], ["a"]),
    ],
)
def test_what_is_trained_again_or_by_turns_is_found(tmp_path, lines, again, mixed):
    path = tmp_path / "diary.txt"
    assert (diary.repeated(path), diary.by_turns(path)) == ([], [])
    path.write_text("".join(f"{line}\n" for line in lines))
    assert (diary.repeated(path), diary.by_turns(path)) == (again, mixed)


def test_attacks_share_the_time_and_each_try_has_its_number(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(run.time, "monotonic", lambda: now)
    numbers = []

    def attempt(seconds, fails):
        def one(rng, folder):
            nonlocal now
            now += seconds
            numbers.append((seconds, rng.number))
            return "it did not hold" if rng.number in fails else None

        return one

    counts = run.attacked({"quick": attempt(1, [7]), "slow": attempt(10, [])}, 40, seed=5)
    assert counts == {"quick": (20, 19), "slow": (2, 2)}
    assert [number for seconds, number in numbers if seconds == 10] == [5, 6]
    assert "quick, --seed 7: it did not hold" in capsys.readouterr().out


def test_a_defence_whose_lack_is_not_found_is_told(monkeypatch, capsys):
    monkeypatch.setattr(run, "TRIES_OF_A_CONTROL", 3)
    controls = {
        "a lock": ("two", lambda rng, folder: "mixed" if rng.number == 1 else None),
        "nothing": ("two", lambda rng, folder: None),
    }
    found = run.controlled(controls, seed=0)
    assert found == {"a lock": 2, "nothing": None}
    assert "| two | 4 | 4 | a lock: 2; nothing: not found |" in run.table(
        {"two": (4, 4)}, controls, found
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["kills", "--minutes", "0.5"],
        ["damage", "--minutes", "0.1"],
        ["hostile", "--minutes", "0.1"],
        ["kills", "--only", "a database is killed", "--minutes", "0.1", "--controls"],
        ["kills", "--only", "a coordinator is frozen", "--minutes", "0.1"],
        ["kills", "--only", "machine sleeps, its clock", "--minutes", "0.1", "--controls"],
        ["kills", "--only", "write one export", "--minutes", "0", "--controls"],
        ["damage", "--minutes", "0", "--controls"],
        ["hostile", "--minutes", "0", "--controls"],
    ],
    ids=" ".join,
)
def test_a_campaign_holds_and_its_controls_do_not(words):
    command = [sys.executable, str(RUN), *words]
    process = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stdout + process.stderr
