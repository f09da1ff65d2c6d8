"""Top floor: `bcl`. It reads the first word and imports what that command needs, and no more."""

import contextlib
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bclightning import __version__
from bclightning.errors import UserError, nearest
from bclightning.runs.interrupt import Interrupted
from bclightning.storage import full_disk

USAGE = """\
usage: bcl COMMAND [options]

Train, compare and ship networks with binary weights (BinaryConnect, arXiv 1511.00363).

commands:
  fit        train a network:        bcl fit --config mnist.yaml
             go on after a stop:     bcl fit --resume RUN
  validate   errors on validation:   bcl validate --run RUN
  test       errors on the test set: bcl test --run RUN
  export     one bit a weight:       bcl export RUN
  predict    classify pictures:      bcl predict MODEL --images *.png
             classify test images:   bcl predict --run RUN
  summary    layers, bits, energy:   bcl summary RUN
  sweep      tune, then repeat:      bcl sweep sweeps/mnist.yaml --jobs 2
             how far is it:          bcl sweep sweeps/mnist.yaml --status
  compare    methods side by side:   bcl compare results/runs/mnist
  reproduce  is a record true here:  bcl reproduce results/mnist/RUN

recipes, found from any folder: digits.yaml, mnist.yaml, cifar10.yaml, svhn.yaml

  bcl COMMAND --help   the options of a command
  bcl --version        the version
"""

COMMANDS = (
    "fit",
    "validate",
    "test",
    "export",
    "predict",
    "summary",
    "sweep",
    "compare",
    "reproduce",
)

# What tells that predictions are asked for of a run, and not of a packed model.
_OF_A_RUN = ("--run", "--config", "--ckpt_path")


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
        with _ending_with_its_reader():
            _dispatch(words)
    except Interrupted as interruption:
        raise SystemExit(interruption.exit_code) from None
    except KeyboardInterrupt:
        # Where there is nothing to end in order.
        raise SystemExit(128 + signal.SIGINT) from None
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


@contextlib.contextmanager
def _ending_with_its_reader() -> Iterator[None]:
    """End quietly where nobody reads on what is printed, as beside ``| head``.

    Raises:
        SystemExit: With 1, as rich's tables do.
    """
    try:
        try:
            yield
        finally:
            # What is still kept back would be written when Python ends, and fail outside of this.
            sys.stdout.flush()
    except BrokenPipeError:
        if not _nobody_reads():
            # Another pipe than the output.
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def _nobody_reads() -> bool:
    """Whether the output is a pipe whose other end is closed."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _dispatch(words: list[str]) -> None:
    command, *rest = words or ["--help"]
    match command:
        case "-h" | "--help" | "help":
            print(USAGE, end="")
        case "--version":
            print(f"bcl {__version__}")
        case "fit":
            from bclightning.runs.run import fit

            fit(rest)
        case "sweep":
            _sweep(rest)
        case "compare":
            from bclightning.cli.compare import compare_runs

            compare_runs(rest)
        case "reproduce":
            from bclightning.runs.reproduce import reproduce

            if not reproduce(rest):
                raise SystemExit(1)
        case "validate" | "test":
            from bclightning.runs.evaluate import evaluate

            evaluate(rest, command)
        case "predict" if any(word.startswith(_OF_A_RUN) for word in rest):
            from bclightning.cli.predict import predict

            predict(rest)
        case "predict":
            from bclightning.cli.classify import classify

            classify(rest)
        case "export":
            from bclightning.cli.export import export

            export(rest)
        case "summary":
            from bclightning.cli.summary import summary

            summary(rest)
        case _:
            hint = nearest(command, COMMANDS)
            raise UserError(f"there is no command {command!r}{hint}; bcl --help lists them")


def _sweep(arguments: list[str]) -> None:
    from bclightning.cli.sweep import sweep

    try:
        failed = sweep(arguments)
    except Interrupted:
        print("stopped; the same command goes on", file=sys.stderr)
        raise
    if failed:
        raise SystemExit(failed)
