"""A promoted page: table, figures, the records they were made from, and how to make them again."""

from collections.abc import Sequence
from pathlib import Path

from bclightning.compare.arms import Comparison
from bclightning.compare.comparison import compare
from bclightning.compare.drawing import drawn_from, save
from bclightning.compare.figures import (
    FIGURES,
    Folders,
    draw_figure,
    figure_digest,
    source_files,
)
from bclightning.compare.loading import FoundRun, gather
from bclightning.compare.page_folder import (
    COMPARED,
    PAGE,
    SHOWN,
    KeptRun,
    by_name,
    check_folder,
    fill,
    keep_definition,
    keep_margin,
    kept_margin,
    locked,
    read_text,
)
from bclightning.compare.page_text import MADE_BY, definition_of, page_text
from bclightning.compare.selection import once, some
from bclightning.compare.trials import (
    SEARCH_FIGURE,
    draw_trials,
    read_trials,
    trials_digest,
    write_trials,
)
from bclightning.errors import UserError
from bclightning.runs.folder import RunFolder
from bclightning.runs.record import RunRecord
from bclightning.storage import write_text


def write_page(
    folder: Path,
    found: Sequence[FoundRun],
    comparisons: Sequence[Comparison],
    replace: bool = False,
    margin: float | None = None,
) -> Path:
    """Promote runs: copy their records into a folder and write its page.

    Args:
        folder: Where the page goes.
        found: The runs.
        comparisons: What they compare to.
        replace: Whether what an earlier page in the folder has of other runs is removed.
        margin: The largest difference of test results that does not matter, which the page keeps;
            that of an earlier page in the folder if ``None``.

    Returns:
        The page.

    Raises:
        UserError: The runs are of several data sets or monitored metrics, two have one name, their
            folders are not on this machine, or `folder` is one of runs and not of a page, or holds
            what would be removed.
        MachineError: The disk is full or the folder cannot be written; each file is whole.
    """
    if len(comparisons) > 1:
        titles = "; ".join(comparison.title for comparison in comparisons)
        raise UserError(
            "a page is of one data set and one monitored metric, and these runs are of "
            f"several: {titles}"
        )
    (comparison,) = comparisons
    compared = _compared(found, comparison)
    kept = by_name([*compared, *_left_out(found, comparison)])
    if any(folder.glob("*/checkpoints")):
        # What is no longer compared goes, and of a run that would be its weights.
        raise UserError(
            f"{folder} holds runs with their checkpoints; write the page into a folder of its own, "
            f"as results/{comparison.data}"
        )
    if not replace:
        check_folder(folder, kept, MADE_BY)
    with locked(folder):
        fill(folder, kept)
        keep_definition(folder, compared)
        if margin is not None:
            keep_margin(folder, margin)
        _make(folder, found)
    return folder / PAGE


def _compared(found: Sequence[FoundRun], comparison: Comparison) -> list[KeptRun]:
    shown = {id(arm.runs[0]) for arm in comparison.arms}
    return [
        KeptRun(record, source, COMPARED, SHOWN if id(record) in shown else ())
        for record, source in _sources(found, comparison.runs)
    ]


def _left_out(found: Sequence[FoundRun], comparison: Comparison) -> list[KeptRun]:
    """The other runs, whose records are kept, or a page of those that did well would hide them."""
    compared = {id(run) for run in comparison.runs}
    records, _ = once([run.record for run in found])
    others = [run for run in records if run.stage != "tune" and id(run) not in compared]
    return [KeptRun(record, source) for record, source in _sources(found, others)]


def _sources(
    found: Sequence[FoundRun], records: Sequence[RunRecord]
) -> list[tuple[RunRecord, RunFolder]]:
    # By the very record: names are unique in an experiment only, and copies may differ.
    folders = {id(run.record): run.folder for run in found}
    elsewhere = [run.run_id for run in records if folders[id(run)] is None]
    if elsewhere:
        raise UserError(f"the folders of {some(elsewhere)} are not on this machine; copy them here")
    return [(run, folder) for run in records if (folder := folders[id(run)]) is not None]


def _make(folder: Path, found: Sequence[FoundRun]) -> None:
    """Draw the figures and write the text, from what was copied, as `check_page` reads it."""
    definition = definition_of(folder)
    if definition:
        write_trials(folder, [run.record for run in found], definition)
    comparison, folders = _read(folder)
    for figure in FIGURES:
        if source_files(figure, comparison, folders):
            draw_figure(figure, folder, comparison, folders)
        else:
            (folder / figure.file).unlink(missing_ok=True)
    if definition and read_trials(folder):
        save(
            folder / SEARCH_FIGURE,
            lambda: draw_trials(folder, definition, comparison),
            trials_digest(folder, comparison.monitor),
        )
    write_text(folder / PAGE, page_text(folder, comparison, folders))


def check_page(folder: Path) -> None:
    """Make a page again from its records, and see that nothing differs.

    Raises:
        UserError: Text or a figure is not what the records say; the sentence names the first line
            that differs.
    """
    comparison, kept = _read(folder)
    page = folder / PAGE
    if not page.is_file():
        raise UserError(f"there is no page {page}")
    there = read_text(page).splitlines()
    made = page_text(folder, comparison, kept).splitlines()
    for number, (ours, theirs) in enumerate(zip(made, there, strict=False), 1):
        if ours != theirs:
            raise UserError(
                f"{page} differs from its records in line {number}: it says {theirs!r}, and they "
                f"say {ours!r}"
            )
    if len(made) != len(there):
        raise UserError(f"{page} has {len(there)} lines, and its records make {len(made)}")
    for figure in FIGURES:
        path = folder / figure.file
        if source_files(figure, comparison, kept):
            _check_figure(path, figure_digest(figure, comparison, kept))
        elif path.exists():
            raise UserError(f"{path} has no data among the records")
    if read_trials(folder):
        _check_figure(folder / SEARCH_FIGURE, trials_digest(folder, comparison.monitor))


def _check_figure(path: Path, source: str) -> None:
    if drawn_from(path) != source:
        raise UserError(f"{path} was drawn from other data than the records")


def _read(folder: Path) -> tuple[Comparison, Folders]:
    found = gather([str(folder)])
    definition = definition_of(folder)
    # The trials, which would tell what was searched, are not among a page's records.
    searched = None if definition is None else list(definition.space)
    comparisons = compare([run.record for run in found], kept_margin(folder), searched)
    if len(comparisons) > 1:
        raise UserError(f"{folder} holds runs of several data sets or monitored metrics")
    folders = {run.record.run_id: run.folder for run in found if run.folder is not None}
    return comparisons[0], folders
