"""Runs that are killed or stopped, meet a full disk, or are trained by two processes at once.

What held means: a run comes to the weights, optimizer state, metrics and results of a run
that nothing disturbed, byte for byte; whoever is asked to stop ends in order; a full disk is told
in a sentence; and of two processes on one run, one trains and the other is refused.
"""

import functools
import json
import os
import random
import shutil
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml
from campaigns import diary, faults
from campaigns.faults import Change, nothing, said
from stopped_runs import differences

from bclightning import storage
from bclightning.cli import main
from bclightning.runs.callbacks import SeedEachEpoch
from bclightning.runs.folder import RunFolder

RECIPE = Path(__file__).parents[1] / "configs" / "tiny.yaml"
RUN = Path("results/runs/digits/r")
FIT = ["fit", "--config", "tiny.yaml", "--run_id", "r"]
RESUME = ["fit", "--resume", str(RUN)]


@functools.cache
def whole(seed: int) -> tuple[Path, int, float]:
    """A run that nothing disturbed, its number of file operations, and its seconds."""
    folder = faults.kept_folder()
    shutil.copy(RECIPE, folder)
    start = time.monotonic()
    assert faults.run([*FIT, "--seed_everything", str(seed)], folder) == 0, said(folder)
    return folder / RUN, int((folder / "operations.txt").read_text()), time.monotonic() - start


def resumed(folder: Path, before: Change, seed: int = 0) -> str | None:
    """Bring a run to its end, as its user would, and compare it with one that was left alone."""
    (folder / "said.txt").unlink(missing_ok=True)
    begun = (folder / RUN / "config.yaml").exists()
    words = RESUME if begun else [*FIT, "--seed_everything", str(seed)]
    code = faults.run(words, folder, before=before)
    if code != 0:
        return f"to resume ended with {code}: {said(folder)}"
    found = differences(folder / RUN, whole(seed)[0])
    return f"not as if nothing had happened: {', '.join(found)}" if found else None


def at_an_operation(
    rng: faults.Try, folder: Path, fault: faults.Fault, before: Change = nothing
) -> str | None:
    """Up to three faults: the first before each file operation in turn, the others before any."""
    shutil.copy(RECIPE, folder)
    _, operations, _ = whole(0)
    for turn in range(rng.randint(1, 3)):
        begun = (folder / RUN / "config.yaml").exists()
        number = rng.randint(1, operations) if turn else rng.number % operations + 1
        code = faults.run(RESUME if begun else FIT, folder, fault, number, before=before)
        if code == 0:
            break
        allowed = {faults.killed: (-9,), faults.asked_to_stop: (143, -15)}[fault]
        if code not in allowed:
            return f"ended with {code} at operation {number}: {said(folder)}"
    return resumed(folder, before)


def at_any_moment(rng: random.Random, folder: Path, before: Change = nothing) -> str | None:
    shutil.copy(RECIPE, folder)
    number = rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    process = faults.start(FIT, folder, before=before)
    time.sleep(rng.uniform(0, whole(0)[2]))
    os.kill(process, number)
    code = faults.wait(process)
    if code not in (0, -number, 128 + number):
        return f"ended with {code} after {number.name}: {said(folder)}"
    return resumed(folder, before)


def full_disk(rng: faults.Try, folder: Path, before: Change = nothing) -> str | None:
    """A disk that is full from each operation on, in turn: it is told in a sentence."""
    shutil.copy(RECIPE, folder)
    number = rng.number % whole(0)[1] + 1
    code = faults.run(FIT, folder, faults.disk_full, number, lasting=True, before=before)
    text = said(folder)
    if code == 0 or "Traceback" in text or "disk is full" not in text:
        return f"ended with {code} at operation {number}: {text}"
    return resumed(folder, before)


def two_at_once(rng: random.Random, folder: Path, before: Change = nothing) -> str | None:
    """Two runs with one id: one of them trains, and all in its folder is its own."""
    shutil.copy(RECIPE, folder)
    words = [[*FIT, "--seed_everything", str(seed)] for seed in (0, 1)]
    processes = [faults.start(line, folder, before=before) for line in words]
    with faults.alive(*processes):
        codes = [faults.wait(process) for process in processes]
    if sorted(codes) != [0, 2]:
        return f"they ended with {codes}: {said(folder)}"
    seed = json.loads((folder / RUN / "run.json").read_text())["seed"]
    found = differences(folder / RUN, whole(seed)[0])
    if found or codes[seed] != 0:
        return f"the record is of seed {seed}, {codes}; not of that run: {', '.join(found)}"
    return None


def two_resume(rng: random.Random, folder: Path, before: Change = nothing) -> str | None:
    """Two processes resume one run while a third is killed that trains it."""
    recipe = yaml.safe_load(RECIPE.read_text())
    recipe["trainer"]["callbacks"] = [diary.callback(0.3)]
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))

    def prepare() -> None:
        os.environ[diary.VARIABLE] = "diary.txt"
        before()

    first = faults.start(FIT, folder, before=prepare)
    while not (folder / RUN / "checkpoints" / "last.ckpt").exists():
        time.sleep(0.01)
    others = [faults.start(RESUME, folder, before=prepare) for _ in range(2)]
    with faults.alive(*others):
        time.sleep(rng.uniform(0, 1))
        os.kill(first, signal.SIGKILL)
        faults.wait(first)
        codes = [faults.wait(process) for process in others]
    if not set(codes) <= {0, 2}:
        return f"they ended with {codes}: {said(folder)}"
    # One epoch more than once, in which the first was killed.
    again, mixed = diary.repeated(folder / "diary.txt"), diary.by_turns(folder / "diary.txt")
    if len(again) > 1 or mixed:
        return f"trained again: {again}; by turns: {mixed}"
    return resumed(folder, prepare)


def before_an_operation(rng: faults.Try, folder: Path) -> str | None:
    return at_an_operation(rng, folder, faults.killed)


def asked_before_an_operation(rng: faults.Try, folder: Path) -> str | None:
    return at_an_operation(rng, folder, faults.asked_to_stop)


KILLED = "kill -9 before each file operation of a run"
ASKED = "SIGTERM before each file operation of a run"
SIGNAL = "a signal at any moment of a run"
FULL = "a full disk from each file operation on"
TWO_RUNS = "two runs of one id"
TWO_RESUME = "two processes resume one run"


def without_seeds() -> None:
    """Draws that go on from where the process happens to be."""
    SeedEachEpoch._seed = lambda self, epoch, rank: None  # type: ignore[method-assign]


def without_locks() -> None:
    nothing: Any = lambda self, check=None: nullcontext()  # noqa: E731
    RunFolder.lock = nothing  # type: ignore[method-assign]


def without_whole_renames() -> None:
    """Files that are copied into their place, and may be caught at half of it."""

    def copy(source, target, **keywords):
        content = Path(source).read_bytes()
        for part in (content[: len(content) // 2], content):
            with open(target, "wb") as file:  # a file operation, so that a kill may come before it
                file.write(part)
        os.unlink(source)

    os.replace = copy


def without_a_sentence() -> None:
    for module in (storage, main):
        module.full_disk = lambda error, path: None  # type: ignore[attr-defined]


ATTACKS: dict[str, faults.Attempt] = {
    KILLED: before_an_operation,
    ASKED: asked_before_an_operation,
    SIGNAL: at_any_moment,
    FULL: full_disk,
    TWO_RUNS: two_at_once,
    TWO_RESUME: two_resume,
}
CONTROLS: faults.Controls = {
    "seeds of each epoch": (
        KILLED,
        lambda rng, folder: at_an_operation(rng, folder, faults.killed, without_seeds),
    ),
    "renames in one step": (
        KILLED,
        lambda rng, folder: at_an_operation(rng, folder, faults.killed, without_whole_renames),
    ),
    "seeds, after SIGTERM": (
        ASKED,
        lambda rng, folder: at_an_operation(rng, folder, faults.asked_to_stop, without_seeds),
    ),
    "seeds, after any signal": (
        SIGNAL,
        lambda rng, folder: at_any_moment(rng, folder, without_seeds),
    ),
    "the sentence for a full disk": (
        FULL,
        lambda rng, folder: full_disk(rng, folder, without_a_sentence),
    ),
    "the lock of a run, two ids": (
        TWO_RUNS,
        lambda rng, folder: two_at_once(rng, folder, without_locks),
    ),
    "the lock of a run, two resume": (
        TWO_RESUME,
        lambda rng, folder: two_resume(rng, folder, without_locks),
    ),
}
