"""`bcl sync`: upload runs that were logged offline to W&B."""

import argparse
import os
from pathlib import Path

from bclightning.cli.parser import add_folder
from bclightning.errors import MachineError, UserError
from bclightning.formatting import printable
from bclightning.tracking.folders import is_uploaded, offline_runs, upload
from bclightning.tracking.mode import has_key

DESCRIPTION = (
    "Upload to W&B all runs that were logged offline and are not uploaded yet. A run that was "
    "stopped and resumed becomes one run there."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    add_folder(parser)


def run(options: argparse.Namespace) -> int:
    """Upload.

    Raises:
        UserError: There is no such folder, or no API key.
        MachineError: Not all runs could be uploaded.
    """
    folder = Path(options.folder)
    files = offline_runs(folder)
    todo = [file for file in files if not is_uploaded(file)]
    if not todo:
        several = f"all {len(files)} are uploaded" if files else "none was logged offline"
        print(f"nothing to upload in {printable(str(folder))}: {several}")
        return 0
    if not has_key(os.environ):
        raise UserError("W&B needs an API key: set WANDB_API_KEY, or type wandb login")
    upload(todo)
    left = [file for file in todo if not is_uploaded(file)]
    if left:
        raise MachineError(
            f"{len(left)} of {len(todo)} runs were not uploaded; what W&B said is above, and the "
            "same command tries them again"
        )
    return 0
