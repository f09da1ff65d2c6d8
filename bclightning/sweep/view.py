"""How far a sweep is: counts, best errors and the time left, from its storage alone."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bclightning.formatting import duration
from bclightning.sweep.studies import Studies

# Seconds between two drawings of the live view.
REDRAW = 1.0


@dataclass(frozen=True)
class ArmProgress:
    """How far an arm is.

    Attributes:
        arm: The arm.
        trials: Trials to make.
        done: Trials that ended well.
        running: Trials and final runs at work.
        failed: Trials and final runs that failed.
        pruned: Trials that were stopped early.
        best: The least validation error of its trials in percent.
        final: Final runs to make.
        final_done: Final runs that ended well.
        seconds_left: Work left, in seconds of one worker; ``None`` where nothing is known yet.
        reasons: Why trials failed, by the name of the trial.
    """

    arm: str
    trials: int
    done: int
    running: int
    failed: int
    pruned: int
    best: float | None
    final: int
    final_done: int
    seconds_left: float | None
    reasons: dict[str, str]


def progress(studies: Studies) -> list[ArmProgress]:
    """How far each arm of a sweep is."""
    found = []
    for arm in studies.definition.arms:
        tune, final = studies.trials(arm, "tune"), studies.trials(arm, "final")
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
                running=_count(both, TrialState.RUNNING),
                failed=_count(both, TrialState.FAIL),
                pruned=_count(tune, TrialState.PRUNED),
                best=min((t.value for t in done if t.value is not None), default=None),
                final=studies.definition.final_seeds,
                final_done=final_done,
                seconds_left=(left or 0.0) + (final_left or 0.0) if known else None,
                reasons={
                    f"{arm} {stage} {trial.number}": trial.user_attrs.get("reason", "unknown")
                    for stage, trials in (("trial", tune), ("final run", final))
                    for trial in trials
                    if trial.state == TrialState.FAIL
                },
            )
        )
    return found


def _count(trials: Sequence[FrozenTrial], state: TrialState) -> int:
    return sum(trial.state == state for trial in trials)


def _seconds_left(
    trials: Sequence[FrozenTrial], wanted: int, of_this_stage: bool = True
) -> float | None:
    """Work left by the mean time of what has ended; that of another stage as a first guess."""
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
    """The time left for `jobs` workers, or as many as run now; empty where nothing is known yet."""
    known = [arm.seconds_left for arm in arms if arm.seconds_left is not None]
    if len(known) < len(arms):
        return ""
    return duration(sum(known) / max(jobs, sum(arm.running for arm in arms)))


def table(name: str, arms: Sequence[ArmProgress]) -> Table:
    """The sweep's state as a table, a row an arm."""
    shown = Table(title=f"sweep {name}", title_justify="left")
    shown.add_column("method", no_wrap=True)
    for heading in ("trials", "running", "failed", "pruned", "best val.", "final runs"):
        shown.add_column(heading, justify="right")
    for arm in arms:
        shown.add_row(
            arm.arm,
            f"{arm.done + arm.pruned}/{arm.trials}",
            str(arm.running),
            str(arm.failed),
            str(arm.pruned),
            "-" if arm.best is None else f"{arm.best:.2f} %",
            f"{arm.final_done}/{arm.final}",
        )
    return shown


def print_state(console: Console, studies: Studies) -> None:
    """Print a sweep's state once, with the reasons of what failed."""
    arms = progress(studies)
    console.print(table(studies.definition.name, arms))
    left = time_left(arms)
    if left and not studies.finished():
        console.print(f"time left: {left}", highlight=False)
    for name, reason in failures(arms).items():
        console.print(f"{name} failed: {reason}", highlight=False, soft_wrap=True, markup=False)


def failures(arms: Sequence[ArmProgress]) -> dict[str, str]:
    """Why trials failed, by the name of the trial, over all arms."""
    return {name: reason for arm in arms for name, reason in arm.reasons.items()}


class LiveView:
    """A sweep's state while it runs: a table that is redrawn on a terminal, else a line an event.

    Args:
        console: Where to print.
        studies: The sweep.
        jobs: Number of workers here.
    """

    def __init__(self, console: Console, studies: Studies, jobs: int) -> None:
        self._console = console
        self._jobs = jobs
        self._drawn = 0.0
        self._studies = studies
        self._live: Live | None = None
        self._epochs: dict[str, str] = {}

    def __enter__(self) -> "LiveView":
        """Open the view."""
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
            self.refresh()
        return self

    def __exit__(self, *error: object) -> None:
        """Clear the view: what comes next, a last table or an error, is not to be told twice."""
        if self._live is not None:
            self._live.stop()

    def epoch(self, run_id: str, number: int, error: float) -> None:
        """An epoch of a run has ended."""
        self._epochs[run_id] = f"{run_id}  epoch {number}  validation error {error:.2f} %"

    def event(self, run_id: str, what: str) -> None:
        """A run has begun, ended, failed, or is to be gone on with."""
        self._epochs.pop(run_id, None)
        line = Text(f"{run_id}: {what}")
        if self._live is None and (left := time_left(progress(self._studies), self._jobs)):
            line.append(f"  (time left {left})")
        self._console.print(line, highlight=False, soft_wrap=True)

    def refresh(self) -> None:
        """Draw the state again, once in a while: each time the storage is read."""
        if self._live is None or time.monotonic() - self._drawn < REDRAW:
            return
        self._drawn = time.monotonic()
        arms = progress(self._studies)
        parts = [table(self._studies.definition.name, arms)]
        lines = list(self._epochs.values())
        if left := time_left(arms, self._jobs):
            lines.append(f"time left: {left}")
        self._live.update(Group(*parts, *map(Text, lines)), refresh=True)
