"""A promoted page: table, figures, the records they were made from, and how to make them again."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from bclightning.compare.arms import Comparison
from bclightning.compare.comparison import compare, setting_text
from bclightning.compare.figures import (
    FIGURES,
    Folders,
    draw_figure,
    drawn_from,
    figure_digest,
    save,
    source_files,
)
from bclightning.compare.loading import FoundRun, gather
from bclightning.compare.render import (
    PAPER_HEADINGS,
    PAPER_IN_WORDS,
    arm_cells,
    arm_headings,
    evaluation_markdown,
    markdown_table,
    pair_cells,
    pair_headings,
    pairs_in_words,
    paper_cells,
)
from bclightning.compare.sweep_protocol import sweep_protocol
from bclightning.compare.trials import (
    SEARCH_FIGURE,
    draw_trials,
    read_trials,
    trials_digest,
    trials_section,
    write_trials,
)
from bclightning.errors import UserError
from bclightning.formatting import duration
from bclightning.runs.folder import RunFolder
from bclightning.storage import write_text
from bclightning.sweep.definition import Definition

PAGE = "README.md"
SWEEP = "sweep.yaml"
# What people found, in their own words; all else on a page comes from its records.
NOTES = "NOTES.md"

# What is kept of each run; the first layer's files only of the run of each arm that is shown.
KEPT = ("run.json", "metrics.csv", "config.yaml")


def write_page(folder: Path, found: Sequence[FoundRun], comparisons: Sequence[Comparison]) -> Path:
    """Promote runs: copy their records into a folder and write its page.

    Args:
        folder: Where the page goes; of an earlier page there, runs that are no longer compared go.
        found: The runs.
        comparisons: What they compare to.

    Returns:
        The page.

    Raises:
        UserError: The runs are of several data sets or monitored metrics, their folders are not on
            this machine, or `folder` is one of runs and not of a page.
    """
    if len(comparisons) > 1:
        titles = "; ".join(comparison.title for comparison in comparisons)
        raise UserError(
            "a page is of one data set and one monitored metric, and these runs are of "
            f"several: {titles}"
        )
    (comparison,) = comparisons
    folders = {run.record.run_id: run.folder for run in found if run.folder is not None}
    # Of runs that did not finish the record is kept, or a page of those that did would hide them.
    judged = [run.record for run in found if run.record.stage != "tune"]
    unfinished = [run for run in judged if run.status != "finished"]
    kept = [*comparison.runs, *unfinished]
    elsewhere = [run.run_id for run in kept if run.run_id not in folders]
    if elsewhere:
        raise UserError(
            f"the folders of {', '.join(elsewhere)} are not on this machine; copy them here"
        )
    if any(folder.glob("*/checkpoints")):
        # What is no longer compared goes, and of a run that would be its weights.
        raise UserError(
            f"{folder} holds runs with their checkpoints; write the page into a folder of its own, "
            f"as results/{comparison.data}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    shown = {arm.runs[0].run_id for arm in comparison.arms}
    for run in comparison.runs:
        source = folders[run.run_id]
        first_layer = (source.first_layer.name, source.features.name)
        _keep(source, folder / run.run_id, KEPT, first_layer if run.run_id in shown else ())
    for run in unfinished:
        source = folders[run.run_id]
        _keep(source, folder / run.run_id, [source.record.name])
    _forget(folder, {run.run_id for run in kept})
    _keep_definition(folder, [folders[run.run_id] for run in comparison.runs])
    definition = _definition(folder)
    if definition:
        write_trials(folder, [run.record for run in found], definition)
    # From what was copied, as `check_page` reads it.
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
    write_text(folder / PAGE, _text(folder, comparison, folders))
    return folder / PAGE


def check_page(folder: Path) -> None:
    """Make a page again from its records, and see that nothing differs.

    Raises:
        UserError: Text or a figure is not what the records say; the sentence names the first line
            that differs.
    """
    comparison, kept = _read(folder)
    page = folder / PAGE
    try:
        there = page.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"there is no page {page}") from error
    made = _text(folder, comparison, kept).splitlines()
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


def _keep(
    run: RunFolder, target: Path, needed: Sequence[str], optional: Sequence[str] = ()
) -> None:
    if run.path.resolve() == target.resolve():
        return
    target.mkdir(exist_ok=True)
    for name in (*needed, *optional):
        if (run.path / name).is_file():
            shutil.copyfile(run.path / name, target / name)
        elif name in needed:
            raise UserError(f"{run.path} has no {name}, which a page needs")


def _forget(folder: Path, kept: set[str]) -> None:
    for record in folder.glob("*/run.json"):
        if record.parent.name not in kept:
            shutil.rmtree(record.parent)


def _keep_definition(folder: Path, runs: Sequence[RunFolder]) -> None:
    definitions = {run.path.resolve().parent / SWEEP for run in runs}
    if len(definitions) == 1 and (definition := definitions.pop()).is_file():
        if definition != folder.resolve() / SWEEP:
            shutil.copyfile(definition, folder / SWEEP)
    else:
        (folder / SWEEP).unlink(missing_ok=True)


def _definition(folder: Path) -> Definition | None:
    return Definition.read(folder / SWEEP) if (folder / SWEEP).is_file() else None


def _read(folder: Path) -> tuple[Comparison, Folders]:
    found = gather([str(folder)])
    comparisons = compare([run.record for run in found])
    if len(comparisons) > 1:
        raise UserError(f"{folder} holds runs of several data sets or monitored metrics")
    folders = {run.record.run_id: run.folder for run in found if run.folder is not None}
    return comparisons[0], folders


def _text(folder: Path, comparison: Comparison, kept: Folders) -> str:
    definition = _definition(folder)
    parts = [
        f"# {definition.name if definition else comparison.data}",
        *([definition.description] if definition and definition.description else []),
        "Made by `bcl compare --write` from the records in this folder; `bcl compare --check` "
        "makes it again and compares.",
        markdown_table(arm_headings(comparison), arm_cells(comparison)),
        _table_in_words(comparison),
    ]
    if (folder / NOTES).is_file():
        parts += ["## Notes", (folder / NOTES).read_text(encoding="utf-8").strip()]
    if comparison.beside_paper:
        table = markdown_table(PAPER_HEADINGS, paper_cells(comparison))
        parts += ["## Beside the paper", table, PAPER_IN_WORDS]
    parts += _evaluation(comparison)
    if comparison.pairs:
        pairs = markdown_table(pair_headings(comparison), pair_cells(comparison))
        parts += ["## Pairs", pairs, pairs_in_words(comparison)]
    parts += comparison.notes
    if definition:
        steps = sweep_protocol(definition, comparison.monitor)
        parts += ["## Protocol", "\n".join(f"- {step}" for step in steps)]
        parts += trials_section(folder, comparison.monitor)
    parts += _settings(comparison)
    parts.append("## Figures")
    for figure in FIGURES:
        if source_files(figure, comparison, kept):
            caption = figure.caption(comparison, kept)
            parts.append(f"![{caption}]({figure.file})\n\n*{caption}*")
    parts += _provenance(comparison)
    parts += _again(folder, comparison)
    return "\n\n".join(parts) + "\n"


def _table_in_words(comparison: Comparison) -> str:
    errors = comparison.monitor.is_error or comparison.test_metric.is_error
    return (
        f"{'Errors in percent, mean' if errors else 'Mean'} ± standard deviation over *n* seeds, "
        f"at the epoch with the {comparison.monitor.best}; the interval is that of the mean, by "
        "Student's t. The best epoch is a mean and the time a median."
    )


def _evaluation(comparison: Comparison) -> list[str]:
    table = evaluation_markdown(comparison)
    if not table:
        return []
    values = "Test errors" if comparison.test_metric.is_error else comparison.test_metric.name
    return [
        "## Evaluation weights",
        table,
        f"{values} by the evaluation weights of the paper's section 2.6: binary (its method 1), "
        "real (method 2), or an ensemble of networks that the stochastic rule draws (method 3). "
        "Batch-norm (BN) statistics as training's running averages left them, or re-estimated on "
        "the training images with the weights that are used.",
    ]


def _settings(comparison: Comparison) -> list[str]:
    keys = list(next(iter(comparison.varied.values()), {}))
    if not keys:
        return []
    rows = [
        [label, *(setting_text(settings[key]) for key in keys)]
        for label, settings in comparison.varied.items()
    ]
    table = markdown_table(["arm", *(f"`{key}`" for key in keys)], rows)
    return ["## Settings that differ", table]


def _provenance(comparison: Comparison) -> list[str]:
    runs = comparison.runs
    spent = duration(sum(run.train_seconds for run in runs))
    codes = [git for run in runs for git in (run.git, *(part["git"] for part in run.parts))]
    commits = sorted({_commit(git) for git in codes})
    machines = sorted({_machine(run.machine) for run in runs})
    versions = sorted(
        {", ".join(f"{name} {version}" for name, version in run.versions.items()) for run in runs}
    )
    what = "final runs" if any(run.stage == "final" for run in runs) else "runs"
    size = f"{len(runs)} {what}, {spent} of training and validation in all"
    lines = [size, *(f"code: {c}" for c in commits), *machines, *versions]
    return ["## Where it comes from", "\n".join(f"- {line}" for line in lines)]


def _commit(git: dict[str, object] | None) -> str:
    if not git:
        return "outside a repository"
    return f"{str(git['commit'])[:12]}{', with changes not committed' if git['dirty'] else ''}"


def _machine(machine: dict[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in machine.items())


def _again(folder: Path, comparison: Comparison) -> list[str]:
    experiment = comparison.runs[0].experiment
    # As seen from the repository, however the folder was named on the command line.
    place = "/".join(folder.resolve().parts[-2:])
    if (folder / SWEEP).is_file():
        commands = [f"bcl sweep {place}/{SWEEP}", f"bcl compare results/runs/{experiment}"]
    else:
        commands = [f"bcl fit --config {place}/{run.run_id}/config.yaml" for run in comparison.runs]
        commands.append(f"bcl compare results/runs/{experiment}")
    commands[-1] += f" --write {place}"
    return ["## Make it again", "```bash\n" + "\n".join(commands) + "\n```"]
