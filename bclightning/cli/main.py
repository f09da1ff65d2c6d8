"""Top floor: `bcl`. It reads the first word and imports what that command needs, and no more."""

import contextlib
import importlib
import logging
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bclightning import __version__
from bclightning.cli.parser import TRAINED_NETWORK, Arguments, with_current_names, with_home
from bclightning.cli.streams import ignore_broken_pipe, loading, usable_streams
from bclightning.errors import MachineError, UserError, is_out_of_memory
from bclightning.formatting import printable
from bclightning.runs.hints import suggest_command
from bclightning.runs.interrupt import Interrupted
from bclightning.runs.origin import find_own_modules
from bclightning.storage import DiskFullError, full_disk, machine_fault


@dataclass(frozen=True)
class Command:
    """A command of `bcl`, in the module of its name.

    Attributes:
        examples: What it is for, each with a command line.
        configures: Whether its options are those of a run's configuration.
        own: Class whose arguments are options of the command alone.
        run_option: Option that names a run, wherever it stands on the line.
        subject: What the command must be told, where it can do nothing without a word.
    """

    examples: tuple[tuple[str, str], ...]
    configures: bool = False
    run_option: str | None = None
    own: str | None = None
    subject: str | None = None


COMMANDS = {
    "fit": Command(
        (
            ("train a network:", "bcl fit --config mnist.yaml"),
            ("resume a stopped run:", "bcl fit --resume RUN"),
        ),
        configures=True,
        run_option="--resume",
        own="bclightning.cli.fit.FitOptions",
        subject="a recipe or a file with --config, as bcl fit --config digits.yaml",
    ),
    "validate": Command(
        (("errors on validation:", "bcl validate RUN"),),
        configures=True,
        run_option="--run",
        own="bclightning.cli.evaluate.EvaluateOptions",
        subject=TRAINED_NETWORK,
    ),
    "test": Command(
        (("errors on the test set:", "bcl test RUN"),),
        configures=True,
        run_option="--run",
        own="bclightning.cli.evaluate.EvaluateOptions",
        subject=TRAINED_NETWORK,
    ),
    "export": Command(
        (("one bit a weight:", "bcl export RUN"),),
        configures=True,
        run_option="--run",
        own="bclightning.cli.export.ExportOptions",
        subject=TRAINED_NETWORK,
    ),
    "predict": Command(
        (
            ("classify images:", "bcl predict MODEL --images *.png"),
            ("classify test images:", "bcl predict RUN"),
        ),
        subject="a packed model or a run: bcl predict MODEL|RUN",
    ),
    "summary": Command(
        (("layers, bits, energy:", "bcl summary RUN"),),
        configures=True,
        run_option="--run",
        subject="a network: bcl summary RUN, or bcl summary mnist.yaml",
        own="bclightning.cli.summary.SummaryOptions",
    ),
    "sweep": Command(
        (
            ("tune, then repeat:", "bcl sweep sweeps/mnist.yaml --jobs 2"),
            ("progress of a sweep:", "bcl sweep sweeps/mnist.yaml --status"),
        )
    ),
    "storage": Command((("sweep on several machines:", "bcl storage sweeps.db --host 0.0.0.0"),)),
    "compare": Command((("arms side by side:", "bcl compare results/runs/mnist"),)),
    "sync": Command((("upload offline runs to W&B:", "bcl sync"),)),
    "reproduce": Command(
        (("is a record true here:", "bcl reproduce results/mnist/RUN"),),
        configures=True,
        own="bclightning.cli.reproduce.ReproduceOptions",
        subject="a recorded run: bcl reproduce RUN",
    ),
    "list": Command((("runs, errors, sizes:", "bcl list"),)),
    "clean": Command((("free disk space:", "bcl clean"),)),
    "completion": Command((("tab completion:", 'eval "$(bcl completion bash)"'),)),
}


def usage() -> str:
    """What `bcl --help` prints."""
    lines = []
    for name, command in COMMANDS.items():
        for place, (purpose, example) in enumerate(command.examples):
            lines.append(f"  {'' if place else name:<10} {purpose:<23} {example}")
    return "\n".join(
        (
            "usage: bcl COMMAND [options]",
            "",
            "Train, compare and ship networks with binary weights (BinaryConnect, "
            "arXiv 1511.00363).",
            "",
            "commands:",
            *lines,
            "",
            "recipes, found from any folder: digits.yaml, mnist.yaml, cifar10.yaml, svhn.yaml",
            "",
            "  bcl COMMAND --help   options of a command (--help=all: every one)",
            "  bcl --version        version",
            "",
        )
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: The words after ``bcl``; those of the process if ``None``.

    Raises:
        SystemExit: With 2 after a user's mistake, which is told in one sentence, with 130 or 143
            after a signal, and with 1 where a command's answer is no.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with usable_streams():
        try:
            with _showing_notices(), _machine_faults(), ignore_broken_pipe():
                code = _dispatch(words)
        except Interrupted as interruption:
            _say_how_to_resume(interruption)
            raise SystemExit(interruption.exit_code) from None
        except KeyboardInterrupt:
            # Where there is nothing to end in order.
            raise SystemExit(128 + signal.SIGINT) from None
        except UserError as error:
            print(f"bcl: {printable(str(error))}", file=sys.stderr)
            raise SystemExit(2) from None
    if code:
        raise SystemExit(code)


@contextlib.contextmanager
def _machine_faults() -> Iterator[None]:
    """Tell the machine's faults that nothing of ours was the one to meet, as when a folder is made.

    Raises:
        MachineError: A file or folder cannot be used, or there is no memory left.
    """
    try:
        yield
    except OSError as error:
        path = Path("a file" if error.filename is None else str(error.filename))
        if full_disk(error, path) is not None:
            # What became of an older file is known where a writer of ours met it, and not here.
            raise DiskFullError(
                f"the disk is full: {path} was not written; free some space and start again"
            ) from error
        raise machine_fault(error, path, "used") or error from error
    except Exception as error:
        if is_out_of_memory(error):
            raise MachineError(
                "the machine has no memory left; free some, or give a smaller --data.batch_size, "
                "--data.eval_batch_size or network"
            ) from error
        raise


def _dispatch(words: list[str]) -> int:
    name, *rest = words or ["--help"]
    if name in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0
    if name == "--version":
        print(f"bcl {__version__}")
        return 0
    if name not in COMMANDS:
        hint = suggest_command(name, COMMANDS)
        raise UserError(f"there is no command {name!r}{hint}; bcl --help lists them")
    command = COMMANDS[name]
    if command.subject is not None and not rest:
        # Before the second that it takes to import what parses options.
        raise UserError(f"name {command.subject.format(name=name)}")
    rest = [with_home(word) for word in with_current_names(rest)]
    named: list[Any] = []
    if "--help=all" in rest:
        rest = ["--help"]
    elif command.configures:
        from bclightning.cli.command_line import check_words
        from bclightning.cli.short_help import help_asked_for

        line = check_words(rest, name, command.own, command.run_option or "--run")
        if (said := help_asked_for(name, command.own, line)) is not None:
            print(said, end="")
            return 0
        named = [line.files, [value for _, value in line.options]]
    if _names_code(name, rest):
        # Where a run is opened, that waits until it is known to be the user's own.
        find_own_modules(named)
    with loading() if command.configures else contextlib.nullcontext():
        module = importlib.import_module(f"bclightning.cli.{name}")
        parser = make_parser(name, module)
    if command.configures:
        from bclightning.runs.config import parse_words

        options: Any = parse_words(parser, rest, command.run_option)
    else:
        options = parser.parse_args(rest)
    code: int = module.run(options)
    return code


def _names_code(name: str, words: Sequence[str]) -> bool:
    """Whether a command line names code, and not only what may have been sent."""
    options = {word.partition("=")[0] for word in words}
    if name == "fit" and "--resume" not in options:
        return True
    return bool(options & {"-c", "--config", "--model", "--data"})


def make_parser(name: str, module: Any) -> Any:
    """The parser of a command.

    Args:
        name: Name of the command.
        module: Its module.
    """
    if COMMANDS[name].configures:
        from bclightning.runs.config import make_run_parser

        parser: Any = make_run_parser(f"bcl {name}", module.DESCRIPTION)
    else:
        parser = Arguments(f"bcl {name}", module.DESCRIPTION)
    module.add_arguments(parser)
    return parser


class _Notices(logging.Handler):
    """Prints notices as they are, to whatever standard output is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage())


@contextlib.contextmanager
def _showing_notices() -> Iterator[None]:
    logger = logging.getLogger("bclightning")
    handler, level = _Notices(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _say_how_to_resume(interruption: Interrupted) -> None:
    if interruption.sweep:
        print("stopped; the same command resumes it", file=sys.stderr)
    elif interruption.folder is not None:
        done = "no epoch is finished yet"
        if interruption.epochs:
            done = f"{interruption.epochs} epochs are kept"
        print(f"stopped; {done}; resume with:", file=sys.stderr)
        # On a line of its own, from which it can be copied whole.
        print(f"bcl fit --resume {shlex.quote(str(interruption.folder))}", file=sys.stderr)
