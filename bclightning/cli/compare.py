"""`bcl compare`: tables of runs, promoted pages, and W&B."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bclightning.compare.comparison import compare
from bclightning.compare.loading import FoundRun, gather, gather_from_storage
from bclightning.compare.render import as_csv, as_json, markdown, terminal_parts
from bclightning.errors import UserError

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
        help="what is printed (default: table)",
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
        "--experiment",
        metavar="NAME",
        help="the experiment that --workspace shows, of several in a project",
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
        console.print(f"{options.check} is what its records say", highlight=False, soft_wrap=True)
        return 0
    if options.workspace:
        from bclightning.compare.workspace import save_workspace

        _refuse_runs(options.runs, "--workspace")
        address = save_workspace(options.workspace, options.experiment)
        console.print(address, markup=False, highlight=False, soft_wrap=True)
        return 0
    if options.experiment:
        raise UserError("--experiment chooses what --workspace shows; leave it out")
    found = _find(options.runs, options.runs_dir, options.wandb, options.storage)
    comparisons = compare([entry.record for entry in found])
    match options.format:
        case "table":
            for comparison in comparisons:
                for part in terminal_parts(comparison, console.width):
                    note = isinstance(part, str)
                    console.print(part, highlight=False, markup=False, soft_wrap=note)
        case "markdown":
            print(markdown(comparisons))
        case "csv":
            print(as_csv(comparisons))
        case "json":
            print(as_json(comparisons))
    if options.write:
        from bclightning.compare.page import write_page

        path = write_page(Path(options.write), found, comparisons, options.replace)
        Console(stderr=True).print(f"written: {path}", highlight=False, soft_wrap=True)
    return 0


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
        elsewhere = gather_from_storage(Path(names[0]), storage)
        try:
            here = gather(names, runs_dir)
        except UserError:
            here = []
        known = {entry.record.run_id for entry in here}
        return [*here, *(entry for entry in elsewhere if entry.record.run_id not in known)]
    return gather(names, runs_dir)
