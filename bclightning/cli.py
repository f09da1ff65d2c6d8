"""Top floor: `bcl`. It reads the first word and imports what that command needs, and no more."""

import sys
from collections.abc import Sequence
from pathlib import Path

from bclightning import __version__
from bclightning.errors import UserError
from bclightning.storage import full_disk

USAGE = """\
usage: bcl COMMAND [options]

Train, compare and ship networks with binary weights (BinaryConnect, arXiv 1511.00363).

commands:
  fit        train a network:        bcl fit --config mnist.yaml
             go on after a stop:     bcl fit --resume RUN
  validate   errors on validation:   bcl validate --run RUN
  test       errors on the test set: bcl test --run RUN
  predict    classify test images:   bcl predict --run RUN

recipes, found from any folder: digits.yaml, mnist.yaml, cifar10.yaml, svhn.yaml

  bcl COMMAND --help   the options of a command
  bcl --version        the version
"""

COMMANDS = ("fit", "validate", "test", "predict")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: The words after ``bcl``; those of the process when ``None``.

    Raises:
        SystemExit: With 2 after a user's mistake, which is told in one sentence, with 130 or 143
            after a signal.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _dispatch(words)
    except UserError as error:
        print(f"bcl: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        # Where no writer of ours was the one to meet it, as when a folder is made.
        full = full_disk(error, Path(error.filename or "a file"))
        if full is None:
            raise
        print(f"bcl: {full}", file=sys.stderr)
        raise SystemExit(2) from None


def _dispatch(words: list[str]) -> None:
    command, *rest = words or ["--help"]
    match command:
        case "-h" | "--help" | "help":
            print(USAGE, end="")
        case "--version":
            print(f"bcl {__version__}")
        case "fit":
            _fit(rest)
        case "validate" | "test":
            from bclightning.experiments.evaluate import evaluate

            evaluate(rest, command)
        case "predict":
            from bclightning.experiments.evaluate import predict

            predict(rest)
        case _:
            import difflib

            near = difflib.get_close_matches(command, COMMANDS, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UserError(f"there is no command {command!r}{hint}; bcl --help lists them")


def _fit(arguments: list[str]) -> None:
    from bclightning.experiments.fit import fit
    from bclightning.experiments.interrupt import Interrupted

    try:
        fit(arguments)
    except Interrupted as interruption:
        raise SystemExit(interruption.exit_code) from None
