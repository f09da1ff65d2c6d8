"""Which runs are compared, and in a sentence each what is left out and why."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from bclightning.runs.record import RunRecord

# Names of runs in a sentence, at most.
MAX_NAMES = 3


def some(names: Iterable[str]) -> str:
    """The first names of many, and how many more there are.

    Example:
        >>> some(["a", "b"]), some("abcde")
        ('a, b', 'a, b, c and 2 more')
    """
    names = list(names)
    shown = ", ".join(names[:MAX_NAMES])
    return shown if len(names) <= MAX_NAMES else f"{shown} and {len(names) - MAX_NAMES} more"


def names_of(runs: Iterable[RunRecord]) -> str:
    """The names of the first of some runs."""
    return some(run.run_id for run in runs)


def judged(runs: Sequence[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """The runs that a comparison judges, and what it leaves out.

    Those are a sweep's final runs where it has some, and none by hand beside them in its folder;
    else the runs by hand; else the trials.
    """
    found, notes = once(runs)
    found, by_hand = _without_runs_by_hand(found)
    notes += by_hand
    others = [run for run in found if run.stage != "tune"]
    if any(run.status == "finished" for run in others) and len(others) < len(found):
        trials = len(found) - len(others)
        notes.append(f"Left out: {trials} trial{'' if trials == 1 else 's'} of the search.")
        found = others
    return found, notes


def ended(runs: Sequence[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """The judged runs that have a result, and what is left out."""
    found, notes = judged(runs)
    others = Counter(run.status for run in found if run.status != "finished")
    if others:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(others.items()))
        notes.append(f"Left out because they did not finish: {counts}.")
    known: list[RunRecord] = []
    unknown: dict[str, list[RunRecord]] = {}
    for run in found:
        if run.status != "finished":
            continue
        if run.best_score is not None and math.isfinite(run.best_score):
            known.append(run)
        else:
            unknown.setdefault(run.monitor, []).append(run)
    for monitor, missing in unknown.items():
        notes.append(f"Left out because they have no best value of {monitor}: {names_of(missing)}.")
    return known, notes


def once(runs: Sequence[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """Each run once: of copies, such as one that was made while it was running, the furthest.

    Returns:
        The runs, and a sentence that names those of which there are copies.
    """
    found: dict[Any, RunRecord] = {}
    copied: dict[str, None] = {}
    for run in runs:
        key = (run.experiment, run.run_id, run.data, run.monitor, run.monitor_mode, run.started)
        if key in found:
            copied[run.run_id] = None
            run = max(found[key], run, key=how_far)
        found[key] = run
    notes = [f"Found more than once and counted once: {some(copied)}."] if copied else []
    return list(found.values()), notes


def how_far(run: RunRecord) -> tuple[bool, str, int]:
    """A key by which the copy of a run that is furthest is the greatest."""
    # A finished run can be tested later, which its record then holds.
    return (run.status == "finished", run.finished, len(run.test))


def _without_runs_by_hand(runs: Sequence[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """The runs without those by hand in the folder of a sweep that has finished runs."""
    sweeps = {run.experiment for run in runs if run.stage == "final" and run.status == "finished"}
    notes = []
    for sweep in sorted(sweeps):
        by_hand = [run for run in runs if run.experiment == sweep and run.stage == "train"]
        if by_hand:
            what = "1 run" if len(by_hand) == 1 else f"{len(by_hand)} runs"
            notes.append(
                f"Left out of the sweep {sweep}: {what} made by hand ({names_of(by_hand)})."
            )
    return [run for run in runs if run.stage != "train" or run.experiment not in sweeps], notes


def without_doubles(runs: Sequence[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """One run of each setting and seed: the same run twice is no evidence."""
    kept: dict[tuple[str, str, int], RunRecord] = {}
    doubles = []
    for run in sorted(runs, key=lambda run: (run.started, run.run_id)):
        key = (run.arm_name, setting_key(run), run.seed)
        if key in kept:
            doubles.append(
                f"Left out: {kept[key].run_id}, which has the setting and seed of {run.run_id}."
            )
        kept[key] = run
    return list(kept.values()), doubles


def setting_key(run: RunRecord) -> str:
    """What makes runs of an arm one row: settings, epochs and the evaluation that stands."""
    return json.dumps([run.hyperparameters, run.epochs, run.evaluation], sort_keys=True)
