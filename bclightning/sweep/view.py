"""How far a sweep is: counts, best values and the time left, from its storage alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from optuna.trial import FrozenTrial, TrialState
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bclightning.formatting import duration, printable
from bclightning.sweep.monitor import Monitor, value_text
from bclightning.sweep.studies import Studies
from bclightning.vocabulary import VAL_ERROR


class View:
    """What is told of a sweep while it runs. This base class shows nothing of it."""

    def start(self, studies: Studies, jobs: int) -> None:
        """The sweep starts, with a number of workers."""

    def stop(self) -> None:
        """The sweep has ended, or was stopped."""

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
        running: Number of trials and final runs that are running.
        failed: Number of trials and final runs that failed.
        pruned: Number of trials that were stopped early.
        best: Best value of the monitored metric; ``None`` before the first trial has ended.
        final: Number of final runs that the definition asks for.
        final_done: Number of final runs that ended well.
        seconds_left: Work left, in seconds of one worker; ``None`` if it cannot be estimated yet.
        reasons: Why trials and final runs failed, by their names.
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
                best=studies.monitor.best(t.value for t in done if t.value is not None),
                final=studies.definition.final_seeds,
                final_done=final_done,
                seconds_left=(left or 0.0) + (final_left or 0.0) if known else None,
                reasons={
                    f"{arm} {stage} {trial.number}": printable(
                        str(trial.user_attrs.get("reason", "unknown"))
                    )
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
    return duration(sum(known) / max(jobs, sum(arm.running for arm in arms)))


def table(name: str, arms: Sequence[ArmProgress], monitor: Monitor) -> Table:
    """The sweep's state as a table with a row for each arm."""
    shown = Table(title=f"sweep {name}", title_justify="left")
    shown.add_column("arm", no_wrap=True)
    best = "best val." if monitor.metric == VAL_ERROR else f"best {monitor.metric}"
    for heading in ("trials", "running", "failed", "pruned", best, "final runs"):
        shown.add_column(escape(printable(heading)), justify="right")
    for arm in arms:
        shown.add_row(
            Text(printable(arm.arm)),
            f"{arm.done + arm.pruned}/{arm.trials}",
            str(arm.running),
            str(arm.failed),
            str(arm.pruned),
            "-" if arm.best is None else value_text(monitor.metric, arm.best),
            f"{arm.final_done}/{arm.final}",
        )
    return shown


def failures(arms: Sequence[ArmProgress]) -> dict[str, str]:
    """Why trials and final runs failed, by their names, over all arms."""
    return {name: reason for arm in arms for name, reason in arm.reasons.items()}
