"""A W&B report that compares the arms of an experiment: the table, its statistics, and charts."""

from typing import Any

from bclightning.compare.comparison import compare
from bclightning.compare.panels import (
    PINNED_COLUMNS,
    filter_of,
    named_panels,
    needing_extra,
    shown_runs,
)
from bclightning.compare.render import markdown
from bclightning.compare.wandb_runs import (
    records_from_wandb,
    split_path,
    wandb_errors_as_user_errors,
)


def save_report(path: str, experiment: str | None = None) -> str:
    """Save a report of an experiment.

    Args:
        path: ``ENTITY/PROJECT``.
        experiment: The experiment; may be left out where the project holds one alone.

    Returns:
        The report's address.

    Raises:
        UserError: The extra is not installed, the path is malformed, there is no key, W&B does not
            answer or refuses, or the project has no such experiment or several.
    """
    entity, project = split_path(path)
    with needing_extra("a report"):
        from wandb_workspaces.reports.v2 import interface as v2
    experiment, shown = shown_runs(path, records_from_wandb(path), experiment)
    runs = v2.Runset(
        entity=entity,
        project=project,
        name=experiment,
        filters=filter_of(experiment, shown[0].stage),
        groupby=["config.arm"],
        pinned_columns=list(PINNED_COLUMNS),
    )
    blocks: list[Any] = [v2.MarkdownBlock(text=markdown(compare(shown)))]
    for title, panels in named_panels().items():
        blocks += [v2.H2(text=title), v2.PanelGrid(runsets=[runs], panels=panels)]
    report = v2.Report(
        entity=entity,
        project=project,
        title=f"Arms of {experiment}",
        description=f"{len(shown)} runs of stage {shown[0].stage}; the table is of the day on "
        "which bcl compare --report wrote it",
        blocks=blocks,
    )
    with wandb_errors_as_user_errors(path):
        report.save()
        return str(report.url)
