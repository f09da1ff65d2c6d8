"""`bcl validate`: the errors of a trained network on the validation set."""

from jsonargparse import Namespace

from bclightning.cli.evaluate import add_arguments, evaluate_and_print

DESCRIPTION = "Validate a trained network with each kind of evaluation weights."

__all__ = ["DESCRIPTION", "add_arguments", "run"]


def run(options: Namespace) -> int:
    """Validate and print."""
    return evaluate_and_print(options, "validate")
