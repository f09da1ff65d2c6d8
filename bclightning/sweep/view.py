"""How far a sweep is: counts, best values and the time left, from its storage alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.table import Table
from rich.text import Text

from bclightning.formatting import duration, printable
from bclightning.sweep.chosen import settings_in_words
from bclightning.sweep.monitor import Monitor, value_text
from bclightning.sweep.studies import Studies, SweepStage
from bclightning.vocabulary import VAL_ERROR

_STAGES: dict[SweepStage, str] = {"tune": "trial", "final": "final run"}


class View:
    """What is told of a sweep while it runs. This base class shows nothing of it."""

    def start(self, studies: Studies, jobs: int) -> None:
        """The sweep starts, with a number of workers."""

    def stop(self) -> None:
        """The sweep has ended, or was stopped."""

    def running(self, run_id: str, settings: Mapping[str, Any]) -> None:
        """A run has started or resumed, with the values that the search gave it, by option."""

    def epoch(self, run_id: str, number: int, value: float) -> None:
        """A run has ended an epoch, counted from 1, with a value of the monitored metric."""

    def event(self, run_id: str, what: str) -> None:
        """A run has started, ended, failed or stopped."""

    def notice(self, sentence: str) -> None:
        """Something is waited for, or is there again."""

    def refresh(self) -> None:
        """Called about twice a second."""


@dataclass(frozen=True)
class ArmProgress:
    """How far an arm is.

    Attributes:
        arm: Name of the arm.
        trials: Number of trials that the definition asks for.
        done: Number of trials that ended well.
        running: The trials and final runs that are running, each with its values, by name.
        failed: Number of trials and final runs that failed.
        pruned: Number of trials that were stopped early.
        best: Best value of the monitored metric; ``None`` before the first trial has ended.
        settings: The values that the search gave the trial with that value, by option.
        final: Number of final runs that the definition asks for.
        final_done: Number of final runs that ended well.
        seconds_left: Work left, in seconds of one worker; ``None`` if it cannot be estimated yet.
        reasons: Why trials and final runs failed, by their names.
    """

    arm: str
    trials: int
    done: int
    running: dict[str, dict[str, Any]]
    failed: int
    pruned: int
    best: float | None
    settings: dict[str, Any]
    final: int
    final_done: int
    seconds_left: float | None
    reasons: dict[str, str]


def progress(studies: Studies) -> list[ArmProgress]:
    """How far each arm of a sweep is."""
    found = []
    for arm in studies.definition.arms:
        tune, final = studies.trials(arm, "tune"), studies.trials(arm, "final")
        stages: tuple[tuple[SweepStage, list[FrozenTrial]], ...] = (
            ("tune", tune),
            ("final", final),
        )
        both = [*tune, *final]
        done = [t for t in tune if t.state == TrialState.COMPLETE]
        final_done = _count(final, TrialState.COMPLETE)
        left = _seconds_left(tune, studies.definition.trials)
        final_left = _seconds_left(final or tune, studies.definition.final_seeds, bool(final))
        known = left is not None and final_left is not None
        found.append(
            ArmProgress(
                arm=arm,
                trials=studies.definition.trials,
                done=len(done),
                running={
                    studies.run_id(arm, stage, trial): _searched(studies, trial)
                    for stage, trials in stages
                    for trial in trials
                    if trial.state == TrialState.RUNNING
                },
                failed=_count(both, TrialState.FAIL),
                pruned=_count(tune, TrialState.PRUNED),
                best=studies.monitor.best(t.value for t in done if t.value is not None),
                settings=studies.best(arm) or {},
                final=studies.definition.final_seeds,
                final_done=final_done,
                seconds_left=(left or 0.0) + (final_left or 0.0) if known else None,
                reasons={
                    f"{arm} {_STAGES[stage]} {trial.number}": printable(
                        str(trial.user_attrs.get("reason", "unknown"))
                    )
                    for stage, trials in stages
                    for trial in trials
                    if trial.state == TrialState.FAIL
                },
            )
        )
    return found


def _searched(studies: Studies, trial: FrozenTrial) -> dict[str, Any]:
    return {key: value for key, value in trial.params.items() if key in studies.definition.space}


def _count(trials: Sequence[FrozenTrial], state: TrialState) -> int:
    return sum(trial.state == state for trial in trials)


def _seconds_left(
    trials: Sequence[FrozenTrial], wanted: int, of_this_stage: bool = True
) -> float | None:
    """Work left, by the mean time of the trials that ended; another stage's as a first guess."""
    if not wanted:
        return 0.0
    times = [t.duration.total_seconds() for t in trials if t.duration is not None]
    ended = sum(t.state.is_finished() for t in trials) if of_this_stage else 0
    left = wanted - ended
    if left <= 0:
        return 0.0
    if not times:
        return None
    mean = sum(times) / len(times)
    begun = sum(
        (datetime.now() - t.datetime_start).total_seconds()
        for t in trials
        if of_this_stage and t.state == TrialState.RUNNING and t.datetime_start is not None
    )
    return max(0.0, left * mean - begun)


def time_left(arms: Sequence[ArmProgress], jobs: int = 1) -> str:
    """The time left for `jobs` workers, or as many as run now; empty if it is not known yet."""
    known = [arm.seconds_left for arm in arms if arm.seconds_left is not None]
    if len(known) < len(arms):
        return ""
    return duration(sum(known) / max(jobs, sum(len(arm.running) for arm in arms)))


def table(name: str, arms: Sequence[ArmProgress], monitor: Monitor) -> Table:
    """The sweep's state as a table with a row for each arm.

    What no arm has, such as failed trials, has no column, so that the rest fits 80 columns.
    """
    tuned = all(arm.done + arm.pruned + arm.failed >= arm.trials for arm in arms)
    best = "best val." if monitor.metric == VAL_ERROR else f"best {monitor.metric}"
    columns: list[tuple[str, list[str]]] = [
        ("trials", [f"{a.done + a.pruned}/{a.trials}" if a.trials else "" for a in arms]),
        ("active", [str(len(arm.running) or "") for arm in arms]),
        ("failed", [str(arm.failed or "") for arm in arms]),
        ("pruned", [str(arm.pruned or "") for arm in arms]),
        (best, ["" if a.best is None else value_text(monitor.metric, a.best) for a in arms]),
        ("chosen" if tuned else "best so far", [settings_in_words(arm.settings) for arm in arms]),
        ("final", [f"{arm.final_done}/{arm.final}" if arm.final else "" for arm in arms]),
    ]
    shown = Table(title=Text(f"sweep {printable(name)}"), title_justify="left")
    shown.add_column("arm", no_wrap=True)
    filled = [(heading, cells) for heading, cells in columns if any(cells)]
    for heading, _ in filled:
        settings = heading in ("chosen", "best so far")
        shown.add_column(
            Text(printable(heading)),
            justify="left" if settings else "right",
            # What is too wide for a narrow terminal goes on in the next line.
            overflow="fold",
            no_wrap=not settings,
        )
    for place, arm in enumerate(arms):
        cells = [Text(printable(cells[place])) for _, cells in filled]
        shown.add_row(Text(printable(arm.arm)), *cells)
    return shown


def running_table(rows: Mapping[str, tuple[Mapping[str, Any], str]]) -> Table:
    """What runs now, a row each: its name, the values that the search gave it, and how far it is.

    Args:
        rows: Values and progress by name of the run.
    """
    shown = Table.grid(padding=(0, 2, 0, 0))
    for run_id, (settings, progress) in rows.items():
        cells = (run_id, settings_in_words(settings), progress)
        shown.add_row(*(Text(printable(cell)) for cell in cells))
    return shown


def failures(arms: Sequence[ArmProgress]) -> dict[str, str]:
    """Why trials and final runs failed, by their names, over all arms."""
    return {name: reason for arm in arms for name, reason in arm.reasons.items()}
