"""`bcl test`: the errors of a trained network on the test set."""

from jsonargparse import Namespace

from bclightning.cli.evaluate import add_arguments, evaluate_and_print

DESCRIPTION = "Test a trained network with each kind of evaluation weights."

__all__ = ["DESCRIPTION", "add_arguments", "run"]


def run(options: Namespace) -> int:
    """Test, print, and complete the record of a finished run."""
    return evaluate_and_print(options, "test")
