"""How command lines are parsed: errors in one sentence, old spellings under today's names."""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from bclightning.errors import UserError
from bclightning.runs.hints import unknown_option
from bclightning.storage import home_expanded

# Options that were spelled with hyphens; they work until version 0.3.
RENAMED = {
    "--batch-norm": "--batch_norm",
    "--ensemble-size": "--ensemble_size",
    "--eval-weights": "--eval_weights",
}

# What a command must be told that works on one.
TRAINED_NETWORK = (
    "a trained network: bcl {name} RUN, or bcl {name} --config FILE --ckpt_path CHECKPOINT"
)


class Arguments(argparse.ArgumentParser):
    """A parser whose errors are `UserError`, and that takes no abbreviations.

    Args:
        prog: Name of the command, as ``bcl sweep``.
        description: What the command does.

    Example:
        >>> parser = Arguments("bcl sweep", "Run a sweep.")
        >>> _ = parser.add_argument("definition")
        >>> parser.parse_args(["mnist.yaml"]).definition
        'mnist.yaml'
    """

    def __init__(self, prog: str, description: str) -> None:
        # An abbreviation is a misspelling that happens to be unique today.
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where help is.

        Raises:
            UserError: Always.
        """
        options = re.findall(r"--[\w.]+", self.format_usage())
        unknown = re.match(r"unrecognized arguments: (--[^\s=]+)", message)
        if unknown:
            message = unknown_option(unknown[1], options)
        raise UserError(f"{message}; {self.prog} --help lists the options")


def with_current_names(words: Sequence[str]) -> list[str]:
    """A command line with each old spelling of an option replaced, which is said once for each.

    Example:
        >>> with_current_names(["r", "--eval_weights=real"])
        ['r', '--eval_weights=real']
    """
    current = []
    said = set()
    for word in words:
        option, equals, value = word.partition("=")
        if option in RENAMED:
            if option not in said:
                print(f"bcl: {option} is now spelled {RENAMED[option]}", file=sys.stderr)
                said.add(option)
            word = f"{RENAMED[option]}{equals}{value}"
        current.append(word)
    return current


def with_home(word: str) -> str:
    """A word of a command line with the user's own folder for ``~/``, in an option's value too.

    A shell expands it at the beginning of a word, and not in ``--data.root=~/data``.

    Example:
        >>> with_home("--model.network.hidden=[16]")
        '--model.network.hidden=[16]'
    """
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{home_expanded(value)}"


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add the argument of commands that look at all runs in a folder."""
    parser.add_argument(
        "folder",
        nargs="?",
        default="results/runs",
        metavar="FOLDER",
        help="Folder of all runs, of an experiment or of one run (default: results/runs).",
    )
