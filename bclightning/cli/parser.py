"""Command lines of the commands that train nothing: argparse, with errors in one sentence."""

import argparse
from typing import NoReturn

from bclightning.errors import UserError


class Arguments(argparse.ArgumentParser):
    """A parser whose errors are `UserError`, and that takes no abbreviations.

    Args:
        prog: The command, as ``bcl sweep``.
        description: What it does.

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
        raise UserError(f"{message}; {self.prog} --help lists what there is")
