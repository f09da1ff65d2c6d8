"""`bcl sweep`: start a sweep, go on with it, or look at one that runs elsewhere."""

import argparse
import contextlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.console import Console

from bclightning.cli.parser import Arguments
from bclightning.errors import UserError
from bclightning.runs.interrupt import interruptible
from bclightning.storage import full_disk, write_text
from bclightning.sweep.definition import Definition, as_arguments

DESCRIPTION = (
    "Run a sweep: for each method a study of trials, judged by the validation error, then its best "
    "setting on fresh seeds, which alone touch the test set. The same command starts a sweep and "
    "goes on with it."
)


def sweep(arguments: Sequence[str]) -> int:
    """Run `bcl sweep`.

    Args:
        arguments: The command line after ``sweep``.

    Returns:
        The exit code: 1 where trials failed, else 0.

    Raises:
        UserError: A mistake in the definition, or a state of the machine or the storage.
        Interrupted: The sweep was stopped; the same command goes on.
    """
    options = _parser().parse_args(list(arguments))
    definition = Definition.read(Path(options.definition))
    folder = Path(options.runs_dir) / definition.name
    storage = options.storage or f"sqlite:///{folder / 'storage.db'}"
    if options.status:
        return _status(definition, storage)
    return _run(definition, folder, storage, options)


def _parser() -> Arguments:
    parser = Arguments("bcl sweep", DESCRIPTION)
    parser.add_argument("definition", metavar="FILE", help="the sweep's definition, a YAML file")
    parser.add_argument(
        "--jobs", type=_positive, default=1, metavar="N", help="worker processes (default: 1)"
    )
    parser.add_argument(
        "--threads",
        type=_positive,
        metavar="N",
        help="threads of a worker (default: the machine's cores divided by the workers; give less "
        "where several terminals share a machine)",
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="postgresql+psycopg://USER@HOST/DATABASE, to work on a sweep from several terminals "
        "or machines (default: an SQLite file in the sweep's folder)",
    )
    parser.add_argument("--status", action="store_true", help="show how far it is, and run nothing")
    parser.add_argument(
        "--runs_dir", default="results/runs", help="folder of all runs (default: results/runs)"
    )
    parser.add_argument(
        "--data.root", dest="root", metavar="DIR", help="folder of the data, as of bcl fit"
    )
    parser.add_argument(
        "--wandb.mode",
        dest="wandb",
        choices=("online", "offline", "disabled"),
        help="how runs reach W&B, as of bcl fit",
    )
    parser.add_argument(
        "--heartbeat",
        type=_positive,
        default=10,
        metavar="SECONDS",
        help="between signs of life; who gives none for three times as long counts as dead, and "
        "its trials are gone on with (default: 10)",
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _status(definition: Definition, storage: str) -> int:
    from bclightning.sweep.studies import Studies
    from bclightning.sweep.view import print_state

    with tempfile.TemporaryDirectory() as copies:
        if storage.startswith("sqlite"):
            # The file is the coordinator's; a copy can be looked at without disturbing it.
            storage = _copy(storage, Path(copies), definition.name)
        studies = Studies(definition, storage)
        print_state(Console(), studies)
        studies.close()
    return 0


def _copy(storage: str, folder: Path, name: str) -> str:
    import sqlite3

    source = Path(storage.partition(":///")[2])
    if not source.is_file():
        raise UserError(f"the sweep {name} has not begun: there is no {source}")
    target = folder / source.name
    try:
        with (
            contextlib.closing(sqlite3.connect(source)) as there,
            contextlib.closing(sqlite3.connect(target)) as here,
        ):
            there.backup(here)
    except sqlite3.DatabaseError as error:
        raise UserError(f"the storage {source} cannot be read: {error}") from error
    return f"sqlite:///{target}"


def _run(definition: Definition, folder: Path, storage: str, options: argparse.Namespace) -> int:
    from bclightning.sweep.coordinator import Coordinator, start_worker_server

    # Only now is torch imported, here and there: what can be refused without it was refused.
    start_worker_server("bclightning.sweep.worker")
    from bclightning.runs.config import resolve_recipe
    from bclightning.sweep.check import check
    from bclightning.sweep.studies import Studies
    from bclightning.sweep.view import LiveView, failures, print_state, progress
    from bclightning.sweep.worker import work

    console = Console()
    recipe = resolve_recipe(definition.recipe)
    given = {"data.root": options.root, "wandb.mode": options.wandb}
    places = {key: value for key, value in given.items() if value is not None}
    more = tuple(as_arguments({**places, "runs_dir": options.runs_dir}))
    check(definition, str(recipe), more)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise full_disk(error, folder) or UserError(
            f"the folder {folder} cannot be made: {error.strerror}; give another --runs_dir"
        ) from error
    with interruptible():
        studies = Studies(definition, storage, options.heartbeat)
        try:
            studies.prepare(recipe.read_text(encoding="utf-8"))
            write_text(folder / "sweep.yaml", yaml.safe_dump(definition.plain(), sort_keys=False))
            with LiveView(console, studies, options.jobs) as view:
                coordinator = Coordinator(studies, folder, str(recipe), view, work, more)
                coordinator.run(options.jobs, options.threads)
            print_state(console, studies)
            failed = failures(progress(studies))
        finally:
            studies.close()
    console.print(f"compare: bcl compare {folder}", highlight=False, soft_wrap=True)
    return 1 if failed else 0
