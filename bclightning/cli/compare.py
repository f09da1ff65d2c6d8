"""`bcl compare`: tables of runs, promoted pages, and W&B."""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bclightning.compare.columns import in_order
from bclightning.compare.comparison import Comparisons, compare
from bclightning.compare.filters import select_runs
from bclightning.compare.layout import table_width
from bclightning.compare.loading import FoundRun, gather, gather_sweep
from bclightning.compare.plain import as_csv, as_json
from bclightning.compare.render import markdown, terminal_parts
from bclightning.errors import UserError
from bclightning.formatting import printable
from bclightning.sweep.chosen import searched_options

DESCRIPTION = (
    "Compare runs: a table for each data set and monitored metric, with a row for each arm, and a "
    "test for each pair."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `bcl compare` to a parser."""
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUNS|SWEEP",
        help="folders or ids of runs, folders of runs, or a sweep's definition",
    )
    parser.add_argument("--wandb", metavar="ENTITY/PROJECT", help="read the runs from W&B instead")
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="read the runs of a sweep from its storage, wherever they were made",
    )
    parser.add_argument(
        "--format",
        choices=("table", "markdown", "csv", "json"),
        default="table",
        help="output format (default: table)",
    )
    parser.add_argument(
        "--margin",
        type=float,
        metavar="M",
        help="largest difference of test results that does not matter, in percentage points of "
        "error: is one bit equivalent to float within it?",
    )
    parser.add_argument(
        "--columns",
        metavar="NAMES",
        help="columns of the table of arms, as arm,n,test_value,learning_rate, or all",
    )
    parser.add_argument("--sort", metavar="COLUMN", help="order of the arms, by a column")
    parser.add_argument(
        "--reverse", action="store_true", help="let --sort begin with the greatest value"
    )
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="CONDITION",
        help="compare only runs that meet this, as regularizer=stochastic, 'seed>3' or "
        "'run_id=mine-*'; may be repeated",
    )
    parser.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="RUN_ID",
        help="leave a run out; may be repeated",
    )
    parser.add_argument(
        "--write",
        metavar="DIR",
        help="write a page with table, figures and the records it was made from",
    )
    parser.add_argument(
        "--replace",
        action="store_true",
        help="let --write remove runs of an earlier page in DIR that are not compared any more",
    )
    parser.add_argument(
        "--check", metavar="DIR", help="make a page again from its records, and compare"
    )
    parser.add_argument(
        "--workspace", metavar="ENTITY/PROJECT", help="save a W&B workspace that compares the runs"
    )
    parser.add_argument(
        "--report", metavar="ENTITY/PROJECT", help="save a W&B report with table and charts"
    )
    parser.add_argument(
        "--experiment",
        metavar="NAME",
        help="the experiment that --workspace or --report shows, of several in a project",
    )
    parser.add_argument(
        "--runs_dir", default="results/runs", help="folder of all runs (default: results/runs)"
    )


def run(options: argparse.Namespace) -> int:
    """Run `bcl compare`.

    Args:
        options: The parsed command line.

    Returns:
        The exit code, 0.

    Raises:
        UserError: A mistake in the command line, or runs that cannot be compared.
    """
    console = Console()
    if options.check:
        from bclightning.compare.page import check_page

        _refuse_runs(options.runs, "--check")
        check_page(Path(options.check))
        said = f"{printable(options.check)} matches its records"
        console.print(said, markup=False, highlight=False, soft_wrap=True)
        return 0
    if options.workspace:
        from bclightning.compare.workspace import save_workspace

        _refuse_runs(options.runs, "--workspace")
        address = save_workspace(options.workspace, options.experiment)
        console.print(printable(address), markup=False, highlight=False, soft_wrap=True)
        return 0
    if options.report:
        from bclightning.compare.report import save_report

        _refuse_runs(options.runs, "--report")
        address = save_report(options.report, options.experiment)
        console.print(printable(address), markup=False, highlight=False, soft_wrap=True)
        return 0
    if options.experiment:
        raise UserError("--experiment chooses what --workspace or --report shows; leave it out")
    if options.reverse and not options.sort:
        raise UserError("--reverse turns the order of --sort around; give --sort COLUMN too")
    if options.write:
        _refuse_choice(options)
    found = _find(options.runs, options.runs_dir, options.wandb, options.storage)
    comparisons = _compared(found, options)
    wanted = _names(options.columns)
    match options.format:
        case "table":
            _print_tables(console, comparisons, wanted)
        case "markdown":
            print(markdown(comparisons, wanted))
        case "csv":
            print(as_csv(comparisons, wanted))
        case "json":
            print(as_json(comparisons, wanted))
    if options.write:
        from bclightning.compare.page import write_page

        path = write_page(Path(options.write), found, comparisons, options.replace, options.margin)
        said = f"written: {printable(str(path))}"
        Console(stderr=True).print(said, markup=False, highlight=False, soft_wrap=True)
    return 0


def _refuse_choice(options: argparse.Namespace) -> None:
    """See that a page is of all runs that were named."""
    for option in ("filter", "exclude"):
        if getattr(options, option):
            raise UserError(
                f"--{option} cannot be combined with --write, for a page hides no run; name the "
                "runs that it is to be made of"
            )
    for option in ("columns", "sort"):
        if getattr(options, option):
            raise UserError(f"--{option} does not change a page; leave it or --write out")


def _compared(found: Sequence[FoundRun], options: argparse.Namespace) -> Comparisons:
    kept, notes = select_runs(found, options.filter, options.exclude)
    # What was searched is told by the trials, even where they are left out.
    searched = searched_options([run.record for run in found])
    comparisons = compare(
        [run.record for run in kept], options.margin, searched if len(kept) < len(found) else None
    )
    if options.sort:
        comparisons = Comparisons(
            in_order(each, options.sort, options.reverse) for each in comparisons
        )
    return Comparisons(replace(each, notes=(*notes, *each.notes)) for each in comparisons)


def _names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UserError("--columns wants names, as arm,n,test_value")
    return names


def _print_tables(console: Console, comparisons: Comparisons, wanted: Sequence[str] | None) -> None:
    parts = [
        part
        for comparison in comparisons
        for part in terminal_parts(comparison, console.width, wanted)
    ]
    for part, following in itertools.zip_longest(parts, parts[1:]):
        if isinstance(part, Table):
            # A terminal narrower than a column wraps its lines, where Rich would cut them.
            Console(width=max(console.width, table_width(part))).print(part, highlight=False)
        else:
            console.print(part, highlight=False, markup=False, soft_wrap=isinstance(part, str))
        if isinstance(following, Table) or (following is not None and type(part) is not str):
            console.print()


def _refuse_runs(runs: Sequence[str], option: str) -> None:
    if runs:
        raise UserError(f"{option} stands alone; leave out {' '.join(runs)}")


def _find(
    names: Sequence[str], runs_dir: str, wandb: str | None, storage: str | None
) -> list[FoundRun]:
    if wandb:
        from bclightning.compare.wandb_runs import records_from_wandb

        _refuse_runs(names, "--wandb")
        return [FoundRun(record, None) for record in records_from_wandb(wandb)]
    if not names:
        raise UserError(
            "name runs, a folder of runs or a sweep's definition to compare, or --wandb "
            "ENTITY/PROJECT"
        )
    if storage:
        if len(names) != 1:
            raise UserError("with --storage name one sweep's definition")
        return gather_sweep(Path(names[0]), storage, runs_dir)
    return gather(names, runs_dir)
