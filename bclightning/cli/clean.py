"""`bcl clean`: what of the runs in a folder can be deleted, and its deletion."""

import argparse
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bclightning.cli.parser import add_folder
from bclightning.formatting import megabytes, printable
from bclightning.runs.cleaning import Removable, removable, remove
from bclightning.storage import expanded

DESCRIPTION = (
    "Show what of the runs in a folder can be deleted, and with --delete delete it: the last "
    "checkpoints of finished runs, with their optimizer states, where the best one is kept, and "
    "what killed processes left behind. Nothing that testing, exporting, predicting, reproducing, "
    "resuming or a warm start needs is deleted."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    add_folder(parser)
    parser.add_argument("--delete", action="store_true", help="Delete what is shown.")


def run(options: argparse.Namespace) -> int:
    """Show or delete.

    Raises:
        UserError: There is no such folder.
        MachineError: Something cannot be deleted.
    """
    console = Console()
    found = removable(expanded(options.folder))
    if options.delete:
        gone = [item for item in found if remove(item)]
        _say(console, f"deleted: {_count(gone)}, {_megabytes(gone)}")
        if len(gone) < len(found):
            _say(console, f"in use by now, and kept: {_count([*{*found} - {*gone}])}")
        return 0
    if not found:
        _say(console, f"there is nothing to delete in {options.folder}")
        return 0
    console.print(_table(found))
    _say(console, f"{_count(found)}, {_megabytes(found)}; nothing is deleted without --delete")
    return 0


def _table(found: Sequence[Removable]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("what", overflow="fold", ratio=2)
    table.add_column("where", overflow="fold", ratio=3)
    table.add_column("size", justify="right", no_wrap=True)
    for item in found:
        cells = (item.reason, printable(str(item.path)), megabytes(item.size))
        table.add_row(*map(Text, cells))
    return table


def _count(items: Sequence[Removable]) -> str:
    return f"{len(items)} {'entry' if len(items) == 1 else 'entries'}"


def _megabytes(items: Sequence[Removable]) -> str:
    return megabytes(sum(item.size for item in items))


def _say(console: Console, text: str) -> None:
    console.print(printable(text), highlight=False, markup=False, soft_wrap=True)
