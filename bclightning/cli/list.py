"""`bcl list`: the runs in a folder, how far they are, and what they take on the disk."""

import argparse
import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bclightning.cli.parser import add_folder
from bclightning.formatting import age, megabytes, printable, score
from bclightning.runs.listing import ListedRun, describe, find_runs
from bclightning.storage import expanded

DESCRIPTION = "List runs: errors, state, epochs, size on disk, and how long ago they ended."

_SORTS: dict[str, Callable[[ListedRun], Any]] = {
    "run": lambda run: run.run,
    "arm": lambda run: (run.arm, run.run),
    "validation": lambda run: _missing_last(run.validation),
    "test": lambda run: _missing_last(run.test),
    "state": lambda run: (run.state, run.run),
    "epochs": lambda run: run.epochs_done,
    "size": lambda run: -run.size,
    "age": lambda run: _missing_last(run.seconds),
}


def _missing_last(value: float | None) -> tuple[bool, float]:
    return value is None, value or 0.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    add_folder(parser)
    parser.add_argument(
        "--sort",
        choices=tuple(_SORTS),
        default="run",
        help="Order: errors and ages from low to high, sizes from large to small (default: run).",
    )
    parser.add_argument("--reverse", action="store_true", help="Reverse the order.")
    parser.add_argument(
        "--format",
        choices=("table", "csv", "json"),
        default="table",
        help="What is printed (default: table).",
    )


def run(options: argparse.Namespace) -> int:
    """List the runs.

    Raises:
        UserError: There is no such folder.
    """
    runs = [describe(folder) for folder in find_runs(expanded(options.folder))]
    runs.sort(key=_SORTS[options.sort], reverse=options.reverse)
    match options.format:
        case "json":
            print(json.dumps([_plain(one) for one in runs], indent=2))
        case "csv":
            print(_csv(runs), end="")
        case _:
            _print_tables(Console(), runs, options.folder)
    return 0


def _plain(one: ListedRun) -> dict[str, Any]:
    content = {"run": one.run, **asdict(one), "folder": str(one.folder)}
    return {**content, "seconds": None if one.seconds is None else round(one.seconds)}


def _csv(runs: Sequence[ListedRun]) -> str:
    text = io.StringIO()
    columns = list(_plain(ListedRun(Path(), "")))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for one in runs:
        writer.writerow(
            {
                key: printable(value) if isinstance(value, str) else value
                for key, value in _plain(one).items()
            }
        )
    return text.getvalue()


def _print_tables(console: Console, runs: Sequence[ListedRun], folder: str) -> None:
    for place in dict.fromkeys(one.folder.parent for one in runs):
        inside = [one for one in runs if one.folder.parent == place]
        console.print(_table(str(place), inside))
    total = megabytes(sum(one.size for one in runs))
    count = f"{len(runs)} run{'' if len(runs) == 1 else 's'}"
    line = f"{count}, {total}; bcl clean shows what can be deleted"
    if not runs:
        line = f"there are no runs in {printable(folder)}"
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(title: str, runs: Sequence[ListedRun]) -> Table:
    table = Table(
        title=Text(printable(title)),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("run", overflow="fold")
    # A run's name says its arm, unless it was named by hand.
    arms = any(one.arm not in one.run for one in runs)
    tests = any(one.test is not None for one in runs)
    headers = ["validation", *(["test"] if tests else []), "state", "epochs", "size", "age"]
    if arms:
        table.add_column("arm", overflow="fold")
    for header in headers:
        justify: Any = "left" if header == "state" else "right"
        table.add_column(header, justify=justify, no_wrap=True)
    for one in runs:
        epochs = str(one.epochs_done)
        if one.epochs_done != one.epochs:
            epochs = f"{one.epochs_done}/{one.epochs}"
        cells = [one.run, *([one.arm] if arms else []), _score(one.monitor, one.validation)]
        cells += [_score(one.test_metric, one.test)] if tests else []
        cells += [one.state, epochs, megabytes(one.size)]
        cells.append("-" if one.seconds is None else age(one.seconds))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def _score(metric: str, value: float | None) -> str:
    return "-" if value is None else score(metric, value)
