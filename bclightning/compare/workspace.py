"""A W&B workspace that shows the arms of a project side by side."""

from typing import Any

from bclightning.compare.panels import (
    PINNED_COLUMNS,
    filter_of,
    named_panels,
    needing_extra,
    shown_runs,
)
from bclightning.compare.wandb_runs import (
    records_from_wandb,
    split_path,
    wandb_errors_as_user_errors,
)

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
    with needing_extra("a workspace"):
        from wandb_workspaces import expr, workspaces
    experiment, shown = shown_runs(path, records_from_wandb(path), experiment)
    workspace = workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"{NAME}: {experiment}",
        sections=_sections(),
        settings=workspaces.WorkspaceSettings(x_axis="Step", max_runs=100),
        runset_settings=workspaces.RunsetSettings(
            filters=filter_of(experiment, shown[0].stage),
            groupby=[expr.Config("data_set"), expr.Config("arm")],
            pinned_columns=list(PINNED_COLUMNS),
        ),
    )
    with wandb_errors_as_user_errors(path):
        workspace.save()  # type: ignore[no-untyped-call]
        return str(workspace.url)


def _sections() -> list[Any]:
    from wandb_workspaces import workspaces

    return [
        workspaces.Section(name=name, panels=panels, is_open=True)
        for name, panels in named_panels().items()
    ]
