"""`bcl sweep`: start a sweep, resume it, or look at one that runs elsewhere."""

import argparse
import contextlib
import shlex
from pathlib import Path

from rich.console import Console

from bclightning.cli.streams import loading
from bclightning.runs.origin import definition_is_code, find_own_modules
from bclightning.sweep import running
from bclightning.sweep.definition import Definition

DESCRIPTION = (
    "Run a sweep: a study of trials for each arm, judged by the monitored metric (by default the "
    "validation error), then the best setting of each on fresh seeds. Only those final runs touch "
    "the test set. The same command starts a sweep and resumes it."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "definition",
        metavar="FILE",
        help="the sweep's definition: a YAML file, or the bare name of a shipped one",
    )
    parser.add_argument(
        "--jobs", type=positive, default=1, metavar="N", help="worker processes (default: 1)"
    )
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="threads of each worker (default: the machine's cores divided by the workers; give "
        "fewer if several sweeps share a machine)",
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="postgresql+psycopg://USER@HOST/DATABASE or grpc://HOST:PORT (see bcl storage), to "
        "work on a sweep from several terminals or machines (default: an SQLite file in the "
        "sweep's folder)",
    )
    parser.add_argument(
        "--status", action="store_true", help="show how far the sweep is, and run nothing"
    )
    parser.add_argument(
        "--runs_dir", default="results/runs", help="folder of all runs (default: results/runs)"
    )
    parser.add_argument(
        "--data.root", dest="root", metavar="DIR", help="folder of the data, as in bcl fit"
    )
    parser.add_argument(
        "--wandb.mode",
        dest="wandb",
        choices=("online", "offline", "disabled"),
        help="how runs reach W&B, as in bcl fit",
    )
    parser.add_argument(
        "--allow_code",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="package or module whose classes a definition in a page or in another's sweep may use",
    )
    parser.add_argument(
        "--heartbeat",
        type=positive,
        default=10,
        metavar="SECONDS",
        help="time between signs of life; a machine that gives none for three times as long is "
        "taken for dead, and others resume its trials (default: 10)",
    )


def run(options: argparse.Namespace) -> int:
    """Run `bcl sweep`.

    Args:
        options: The parsed arguments.

    Returns:
        The exit code: 1 if trials or final runs failed, else 0.

    Raises:
        UserError: Something is wrong with the definition, the machine or the storage.
        Interrupted: The sweep was stopped; the same command resumes it.
    """
    definition = Definition.load(options.definition)
    storage = options.storage or running.default_storage(definition, options.runs_dir)
    console = Console()
    if options.status:
        _print_state(console, definition, storage)
        return 0
    from bclightning.cli.sweep_view import LiveView

    if options.allow_code or definition_is_code(options.definition):
        find_own_modules()
    places = {"data.root": options.root, "wandb.mode": options.wandb}
    with contextlib.ExitStack() as shown:
        shown.enter_context(loading())
        running.sweep(
            options.definition,
            jobs=options.jobs,
            threads=options.threads,
            storage=storage,
            runs_dir=options.runs_dir,
            options={key: value for key, value in places.items() if value is not None},
            heartbeat=options.heartbeat,
            view=LiveView(console, shown.close),
            allow_code=options.allow_code,
        )
    failed = _print_state(console, definition, storage)
    folder = shlex.quote(str(Path(options.runs_dir) / definition.name))
    for line in ("", "next:", f"bcl compare {folder}"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 1 if failed else 0


def positive(text: str) -> int:
    """An argument that is an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)


def _print_state(console: Console, definition: Definition, storage: str) -> bool:
    """Print how far a sweep is, and return whether anything of it failed."""
    from bclightning.cli.sweep_view import print_state
    from bclightning.sweep.reading import reading

    with reading(definition, storage) as studies:
        studies.storage.notify = lambda sentence: console.print(sentence, markup=False)
        return print_state(console, studies)
