"""Exports and pages that are killed, meet a full disk, or are written by two processes at once.

What held means: at each moment every file is whole, as it was before or as an undisturbed command
writes it; a full disk is told in a sentence; and the same command, given again, ends with code 0
and leaves what it leaves undisturbed.
"""

import contextlib
import functools
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from campaigns import faults, fits
from campaigns.faults import Change, nothing, said

from bclightning.compare import page
from bclightning.runs import scratch

RUNS = "results/runs/digits"
OLD, NEW = ("r0", "r1")

Command = tuple[list[str], list[str]]
"""The words that make a file or a page, and those that replace it by another one."""

EXPORT: Command = (
    ["export", f"{RUNS}/{OLD}", "--output", "out/model.safetensors"],
    ["export", f"{RUNS}/{NEW}", "--output", "out/model.safetensors"],
)
PAGE: Command = (
    ["compare", f"{RUNS}/{OLD}", "--write", "out"],
    ["compare", f"{RUNS}/{OLD}", f"{RUNS}/{NEW}", "--write", "out"],
)
COMMANDS = {"export": EXPORT, "page": PAGE}


@functools.cache
def runs() -> Path:
    """A folder with two whole runs."""
    folder = faults.kept_folder()
    shutil.copy(fits.RECIPE, folder)
    for seed, name in enumerate((OLD, NEW)):
        words = ["fit", "--config", "tiny.yaml", "--run_id", name, "--seed_everything", str(seed)]
        assert faults.run(words, folder) == 0, said(folder)
    return folder


def begun(parent: Path, command: Command) -> Path:
    """A folder with runs, and with what the command's first form makes of them."""
    # Of a fixed name, since a page says how it is made again.
    folder = parent / "work"
    shutil.copytree(runs() / "results", folder / "results")
    (folder / "out").mkdir()
    assert faults.run(command[0], folder) == 0, said(folder)
    (folder / "said.txt").unlink()
    return folder


def content(folder: Path) -> dict[str, bytes]:
    """The files of a folder, but for those that only a process at work has use for."""
    found = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in inside.parts):
            found[str(inside)] = path.read_bytes()
    return found


@functools.cache
def undisturbed(name: str) -> tuple[dict[str, bytes], dict[str, bytes], int]:
    """What both forms of a command leave, and the number of the second one's file operations."""
    folder = begun(faults.kept_folder(), COMMANDS[name])
    old = content(folder / "out")
    assert faults.run(COMMANDS[name][1], folder) == 0, said(folder)
    return old, content(folder / "out"), int((folder / "operations.txt").read_text())


def torn(folder: Path, name: str) -> str | None:
    """A file that is neither as before nor as it shall be."""
    old, new, _ = undisturbed(name)
    for file, found in content(folder / "out").items():
        if found not in (old.get(file), new.get(file)):
            return f"{file} of the {name} is torn"
    return None


def made_again(folder: Path, name: str, before: Change) -> str | None:
    code = faults.run(COMMANDS[name][1], folder, before=before)
    if code != 0:
        return f"the same {name} again ended with {code}: {said(folder)}"
    _, new, _ = undisturbed(name)
    found = content(folder / "out")
    unlike = [file for file in {**new, **found} if new.get(file) != found.get(file)]
    return f"the {name} is not as if nothing had happened: {unlike}" if unlike else None


def killed(rng: faults.Try, folder: Path, before: Change = nothing) -> str | None:
    """A kill before each file operation in turn."""
    name = list(COMMANDS)[rng.number % len(COMMANDS)]
    folder = begun(folder, COMMANDS[name])
    number = rng.number // len(COMMANDS) % undisturbed(name)[2] + 1
    code = faults.run(COMMANDS[name][1], folder, faults.killed, number, before=before)
    if code not in (0, -9):
        return f"{name} ended with {code} at operation {number}: {said(folder)}"
    return torn(folder, name) or made_again(folder, name, before)


def full_disk(rng: faults.Try, folder: Path, before: Change = nothing) -> str | None:
    """A disk that is full from each file operation on, in turn."""
    name = list(COMMANDS)[rng.number % len(COMMANDS)]
    folder = begun(folder, COMMANDS[name])
    number = rng.number // len(COMMANDS) % undisturbed(name)[2] + 1
    command = COMMANDS[name][1]
    code = faults.run(command, folder, faults.disk_full, number, lasting=True, before=before)
    text = said(folder)
    # What only tidies up may fail.
    if code not in (0, 2) or "Traceback" in text or (code and "disk is full" not in text):
        return f"{name} ended with {code} at operation {number}: {text}"
    return torn(folder, name) or made_again(folder, name, before)


def two_at_once(rng: random.Random, folder: Path, before: Change = nothing) -> str | None:
    """Two processes write one file, or one page, at the same moment."""
    name = rng.choice(list(COMMANDS))
    return two(name, folder, before)


def two(name: str, folder: Path, before: Change) -> str | None:
    folder = begun(folder, COMMANDS[name])
    both = [faults.start(COMMANDS[name][1], folder, before=before) for _ in range(2)]
    with faults.alive(*both):
        codes = [faults.wait(process) for process in both]
    if codes != [0, 0]:
        return f"two of {name} ended with {codes}: {said(folder)}"
    return torn(folder, name) or made_again(folder, name, nothing)


KILLED = "kill -9 before each file operation of an export, a page"
FULL = "a full disk in an export, a page"
TWO = "two processes write one export, one page"

ATTACKS: dict[str, faults.Attempt] = {KILLED: killed, FULL: full_disk, TWO: two_at_once}


def without_the_lock_of_a_page() -> None:
    nothing: Any = lambda folder: contextlib.nullcontext()  # noqa: E731
    page.locked = nothing


def without_the_lock_of_an_export() -> None:
    """Take the folder of any other export for what a killed one left."""

    def remove(parent: Path) -> None:
        for place in parent.glob(".export-*"):
            shutil.rmtree(place, ignore_errors=True)

    scratch._remove_leftovers = remove


def lacking(attempt: Callable[..., str | None], before: Change) -> faults.Attempt:
    return lambda rng, folder: attempt(rng, folder, before)


CONTROLS: faults.Controls = {
    "renames in one step, of exports and pages": (
        KILLED,
        lacking(killed, fits.without_whole_renames),
    ),
    "the sentence for a full disk, of exports and pages": (
        FULL,
        lacking(full_disk, fits.without_a_sentence),
    ),
    "the lock of a page": (
        TWO,
        lambda rng, folder: two("page", folder, without_the_lock_of_a_page),
    ),
    "the lock of an export": (
        TWO,
        lambda rng, folder: two("export", folder, without_the_lock_of_an_export),
    ),
}
