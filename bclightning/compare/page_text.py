"""The text of a promoted page, made from the records in its folder alone."""

import shlex
from pathlib import Path

from bclightning.compare.arms import Comparison
from bclightning.compare.figures import FIGURES, Folders, source_files
from bclightning.compare.layout import joined_markdown, markdown_table
from bclightning.compare.page_folder import NOTES, SWEEP, read_text
from bclightning.compare.sections import (
    Section,
    arm_grids,
    evaluation_grid,
    one_bit_section,
    pair_section,
    paper_section,
)
from bclightning.compare.sweep_protocol import sweep_protocol
from bclightning.compare.trials import trials_section
from bclightning.formatting import duration, markdown_code, markdown_text, printable
from bclightning.sweep.chosen import setting_text
from bclightning.sweep.definition import Definition

# The words that tell a page from a README that somebody wrote.
MADE_BY = "Made by `bcl compare --write`"


def definition_of(folder: Path) -> Definition | None:
    """The definition of the sweep whose page it is, ``None`` where it is of no sweep.

    Raises:
        UserError: The definition is malformed.
    """
    return Definition.read(folder / SWEEP) if (folder / SWEEP).is_file() else None


def page_text(folder: Path, comparison: Comparison, kept: Folders) -> str:
    """The page in Markdown.

    Args:
        folder: The page's folder.
        comparison: The comparison of the records in it.
        kept: The folders of their runs.

    Raises:
        UserError: A file in the folder is damaged.
    """
    definition = definition_of(folder)
    parts = [
        f"# {markdown_text(definition.name if definition else comparison.data)}",
        *_description(definition),
        f"{MADE_BY} from the records in this folder; `bcl compare --check` "
        "makes it again and compares.",
        *(markdown_table(grid.headings, grid.rows) for grid in arm_grids(comparison)),
        _table_in_words(comparison),
    ]
    if (folder / NOTES).is_file():
        parts += ["## Notes", read_text(folder / NOTES).strip()]
    parts += _section(one_bit_section(comparison))
    parts += _section(paper_section(comparison))
    parts += _evaluation(comparison)
    parts += _section(pair_section(comparison))
    parts += map(markdown_text, comparison.notes)
    if definition:
        steps = sweep_protocol(definition, comparison.monitor)
        parts += ["## Protocol", "\n".join(f"- {step}" for step in steps)]
        parts += trials_section(folder, comparison.monitor)
    parts += _settings(comparison)
    parts.append("## Figures")
    for figure in FIGURES:
        if source_files(figure, comparison, kept):
            caption = markdown_text(figure.caption(comparison, kept))
            parts.append(f"![{caption}]({figure.file})\n\n*{caption}*")
    parts += _provenance(comparison)
    parts += _again(folder, comparison)
    return "\n\n".join(parts) + "\n"


def _description(definition: Definition | None) -> list[str]:
    words = " ".join(definition.description.split()) if definition else ""
    return [markdown_text(words)] if words else []


def _table_in_words(comparison: Comparison) -> str:
    errors = comparison.monitor.is_error or comparison.test_metric.is_error
    return (
        f"{'Errors in percent, mean' if errors else 'Mean'} ± standard deviation over *n* seeds, "
        f"at the epoch with the {markdown_text(comparison.monitor.best)}; the interval is that of "
        "the mean, by Student's t. The best epoch is a mean and the time a median."
    )


def _section(section: Section | None) -> list[str]:
    if section is None:
        return []
    title = section.grid.title
    table = markdown_table(section.grid.headings, section.grid.rows)
    return [f"## {title[:1].upper()}{title[1:]}", table, markdown_text(section.words)]


def _evaluation(comparison: Comparison) -> list[str]:
    grid = evaluation_grid(comparison)
    if grid is None:
        return []
    metric = comparison.test_metric
    values = "Test errors" if metric.is_error else f"Values of {markdown_text(metric.name)}"
    return [
        "## Evaluation weights",
        markdown_table(grid.headings, grid.rows),
        f"{values} by the evaluation weights of the paper's section 2.6: binary (its method 1), "
        "real (method 2), or an ensemble of networks that the stochastic rule draws (method 3). "
        "Batch-norm (BN) statistics as training's running averages left them, or re-estimated on "
        "the training images with the weights that are used. The number of runs is that of the "
        "first table where none is given.",
    ]


def _settings(comparison: Comparison) -> list[str]:
    keys = list(next(iter(comparison.varied.values()), {}))
    if not keys:
        return []
    rows = [
        [markdown_text(cell) for cell in (label, *(setting_text(settings[key]) for key in keys))]
        for label, settings in comparison.varied.items()
    ]
    table = joined_markdown(["arm", *map(markdown_code, keys)], rows)
    return ["## Settings that differ", table]


def _provenance(comparison: Comparison) -> list[str]:
    runs = comparison.runs
    spent = duration(sum(run.train_seconds for run in runs))
    codes = [git for run in runs for git in run.in_each_part("git")]
    commits = sorted({_commit(git) for git in codes})
    machines = sorted({_machine(run.machine) for run in runs})
    versions = sorted(
        {", ".join(f"{name} {version}" for name, version in run.versions.items()) for run in runs}
    )
    what = "final runs" if any(run.stage == "final" for run in runs) else "runs"
    size = f"{len(runs)} {what}, {spent} of training and validation in all"
    lines = [size, *(f"code: {c}" for c in commits), *machines, *versions]
    return ["## Where it comes from", "\n".join(f"- {markdown_text(line)}" for line in lines)]


def _commit(git: dict[str, object] | None) -> str:
    if not git:
        return "outside a repository"
    return f"{str(git['commit'])[:12]}{', with changes not committed' if git['dirty'] else ''}"


def _machine(machine: dict[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in machine.items())


def _again(folder: Path, comparison: Comparison) -> list[str]:
    experiment = comparison.runs[0].experiment
    # As seen from the repository, however the folder was named on the command line.
    place = shlex.quote(printable("/".join(folder.resolve().parts[-2:])))
    if (folder / SWEEP).is_file():
        commands = [f"bcl sweep {place}/{SWEEP}", f"bcl compare results/runs/{experiment}"]
    else:
        commands = [f"bcl fit --config {place}/{run.run_id}/config.yaml" for run in comparison.runs]
        commands.append(f"bcl compare results/runs/{experiment}")
    commands[-1] += f" --write {place}"
    return ["## Make it again", "```bash\n" + "\n".join(commands) + "\n```"]
