"""What W&B shows of an experiment: which runs, and in which charts."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from bclightning.compare.selection import judged
from bclightning.errors import UserError, nearest
from bclightning.runs.folder import checked_name
from bclightning.runs.record import RunRecord
from bclightning.tracking.names import wandb_name
from bclightning.vocabulary import TEST_ERROR, TRAIN_LOSS, VAL_ERROR, Stage

_TEST = wandb_name(TEST_ERROR)
_VAL = wandb_name(VAL_ERROR)

RESULTS = (_TEST, f"best/{_VAL}")
"""What stands for a run in W&B's tables."""

PINNED_COLUMNS = ("run:displayName", *(f"summary:{name}" for name in RESULTS))
"""What W&B's list of runs shows first."""


@contextlib.contextmanager
def needing_extra(what: str) -> Iterator[None]:
    """Import what only an extra installs.

    Raises:
        UserError: The extra is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise UserError(f"{what} needs an extra: pip install 'bclightning[workspace]'") from error


def shown_runs(
    path: str, records: Sequence[RunRecord], experiment: str | None
) -> tuple[str, list[RunRecord]]:
    """The experiment that W&B shows, and those of its runs that may be averaged.

    Those are the final runs of a sweep that has some, else runs by hand, else trials.

    Args:
        path: ``ENTITY/PROJECT``.
        records: Records of the project's runs.
        experiment: The experiment; may be left out where there is one alone.

    Raises:
        UserError: There is no such experiment, or there are several.
    """
    known = sorted({record.experiment for record in records})
    if experiment is None and len(known) > 1:
        raise UserError(
            f"{path} holds runs of several experiments, which would be averaged; name one "
            f"with --experiment: {', '.join(known)}"
        )
    experiment = known[0] if experiment is None else experiment
    if experiment not in known:
        raise UserError(f"{path} holds no experiment {experiment!r}{nearest(experiment, known)}")
    # A filter is an expression in which W&B reads names back.
    checked_name(experiment, "the experiment")
    mine = [record for record in records if record.experiment == experiment]
    runs, _ = judged([record for record in mine if record.status == "finished"] or mine)
    return experiment, list(runs)


def filter_of(experiment: str, stage: Stage) -> str:
    """W&B's filter of the runs of an experiment and a stage."""
    return f"Metric('Group') == '{experiment}' and Metric('JobType') == '{stage}'"


def named_panels() -> dict[str, list[Any]]:
    """Charts by what they are about: errors with their spread, curves, settings, runs."""
    from wandb_workspaces.reports.v2 import interface as v2

    # The mean over the seeds of an arm, and their spread.
    spread: dict[str, Any] = {
        "groupby": v2.Config("arm"),
        "groupby_aggfunc": "mean",
        "groupby_rangefunc": "stddev",
    }
    bars = {
        "test error, %": _TEST,
        "validation error at the best epoch, %": f"best/{_VAL}",
        "test error with binary weights, %": f"{_TEST}/binary/re-estimated",
    }
    curves = {"validation error, %": _VAL, TRAIN_LOSS: TRAIN_LOSS}
    columns = [
        v2.ParallelCoordinatesPlotColumn(metric=v2.Config("arm")),
        v2.ParallelCoordinatesPlotColumn(metric=v2.Config("learning_rate"), log=True),
        v2.ParallelCoordinatesPlotColumn(metric=v2.Config("batch_size")),
        v2.ParallelCoordinatesPlotColumn(metric=v2.SummaryMetric(f"best/{_VAL}"), log=True),
    ]
    return {
        "Errors": [v2.BarPlot(title=title, metrics=[key], **spread) for title, key in bars.items()],
        "Curves": [
            v2.LinePlot(title=title, x="Step", y=[key], log_y=key == _VAL, **spread)
            for title, key in curves.items()
        ],
        "Settings": [v2.ParallelCoordinatesPlot(title="settings", columns=columns)],
        "Runs": [v2.RunComparer(diff_only=True)],
    }
