"""A W&B workspace that shows the arms of a project side by side."""

from typing import Any

from bclightning.compare.wandb_runs import split_path, wandb_errors_as_user_errors
from bclightning.errors import UserError
from bclightning.vocabulary import TEST_ERROR, TRAIN_LOSS, VAL_ERROR

NAME = "Arms side by side"


def save_workspace(path: str) -> str:
    """Save a workspace for a project: runs grouped by arm, errors with spread, curves.

    Args:
        path: ``ENTITY/PROJECT``.

    Returns:
        The workspace's address.

    Raises:
        UserError: The extra is not installed, the path is malformed, there is no key, or W&B does
            not answer or refuses.
    """
    entity, project = split_path(path)
    try:
        from wandb_workspaces import expr, workspaces
    except ImportError as error:
        raise UserError(
            "a workspace needs an extra: pip install 'bclightning[workspace]'"
        ) from error
    workspace = workspaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=_sections(),
        settings=workspaces.WorkspaceSettings(x_axis="epoch", max_runs=100),
        runset_settings=workspaces.RunsetSettings(
            groupby=[expr.Config("data_set"), expr.Config("arm")],
            pinned_columns=["run:displayName", "summary:test/error", "summary:best/val/error"],
        ),
    )
    with wandb_errors_as_user_errors(path):
        workspace.save()  # type: ignore[no-untyped-call]
        return str(workspace.url)


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
