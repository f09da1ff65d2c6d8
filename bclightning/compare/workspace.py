"""A W&B workspace that shows the arms of a project side by side."""

from collections.abc import Sequence
from typing import Any

from bclightning.compare.selection import judged
from bclightning.compare.wandb_runs import (
    records_from_wandb,
    split_path,
    wandb_errors_as_user_errors,
)
from bclightning.errors import UserError, nearest
from bclightning.runs.folder import checked_name
from bclightning.runs.record import RunRecord
from bclightning.vocabulary import TEST_ERROR, TRAIN_LOSS, VAL_ERROR, Stage

NAME = "Arms side by side"


def save_workspace(path: str, experiment: str | None = None) -> str:
    """Save a workspace for an experiment: runs grouped by arm, errors with spread, curves.

    It shows the final runs of a sweep that has some, else runs by hand, else trials: W&B averages
    all runs of an arm that it shows.

    Args:
        path: ``ENTITY/PROJECT``.
        experiment: The experiment; may be left out where the project holds one alone.

    Returns:
        The workspace's address.

    Raises:
        UserError: The extra is not installed, the path is malformed, there is no key, W&B does not
            answer or refuses, or the project has no such experiment or several.
    """
    entity, project = split_path(path)
    try:
        from wandb_workspaces import expr, workspaces
    except ImportError as error:
        raise UserError(
            "a workspace needs an extra: pip install 'bclightning[workspace]'"
        ) from error
    experiment, stage = _shown(path, records_from_wandb(path), experiment)
    workspace = workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"{NAME}: {experiment}",
        sections=_sections(),
        settings=workspaces.WorkspaceSettings(x_axis="epoch", max_runs=100),
        runset_settings=workspaces.RunsetSettings(
            filters=f"Metric('Group') == '{experiment}' and Metric('JobType') == '{stage}'",
            groupby=[expr.Config("data_set"), expr.Config("arm")],
            pinned_columns=["run:displayName", "summary:test/error", "summary:best/val/error"],
        ),
    )
    with wandb_errors_as_user_errors(path):
        workspace.save()  # type: ignore[no-untyped-call]
        return str(workspace.url)


def _shown(path: str, records: Sequence[RunRecord], experiment: str | None) -> tuple[str, Stage]:
    """The experiment that a workspace shows, and the stage of its runs."""
    known = sorted({record.experiment for record in records})
    if experiment is None and len(known) > 1:
        raise UserError(
            f"{path} holds runs of several experiments, which a workspace would average; name one "
            f"with --experiment: {', '.join(known)}"
        )
    experiment = known[0] if experiment is None else experiment
    if experiment not in known:
        raise UserError(f"{path} holds no experiment {experiment!r}{nearest(experiment, known)}")
    # A filter is an expression in which W&B reads names back.
    checked_name(experiment, "the experiment")
    mine = [record for record in records if record.experiment == experiment]
    runs, _ = judged([record for record in mine if record.status == "finished"] or mine)
    return experiment, runs[0].stage


def _sections() -> list[Any]:
    from wandb_workspaces import workspaces
    from wandb_workspaces.reports.v2 import interface as v2

    # The mean over the seeds of an arm, and their spread.
    spread: dict[str, Any] = {
        "groupby": v2.Config("arm"),
        "groupby_aggfunc": "mean",
        "groupby_rangefunc": "stddev",
    }
    errors = [
        v2.BarPlot(title="test error, %", metrics=[TEST_ERROR], **spread),
        v2.BarPlot(
            title="validation error at the best epoch, %", metrics=["best/val/error"], **spread
        ),
        v2.BarPlot(
            title="test error with binary weights, %",
            metrics=["test/error/binary/re-estimated"],
            **spread,
        ),
    ]
    curves = [
        v2.LinePlot(title=key, x="epoch", y=[key], log_y=key == VAL_ERROR, **spread)
        for key in (VAL_ERROR, TRAIN_LOSS)
    ]
    columns = [
        v2.ParallelCoordinatesPlotColumn(metric=v2.Config("arm")),
        v2.ParallelCoordinatesPlotColumn(metric=v2.Config("model.learning_rate"), log=True),
        v2.ParallelCoordinatesPlotColumn(metric=v2.Config("data.init_args.batch_size")),
        v2.ParallelCoordinatesPlotColumn(metric=v2.SummaryMetric("best/val/error"), log=True),
    ]
    settings = [v2.ParallelCoordinatesPlot(title="settings", columns=columns)]
    compared = [v2.RunComparer(diff_only=True)]
    named: tuple[tuple[str, list[Any]], ...] = (
        ("Errors", errors),
        ("Curves", curves),
        ("Settings", settings),
        ("Runs", compared),
    )
    return [workspaces.Section(name=name, panels=panels, is_open=True) for name, panels in named]
