"""`bcl predict`: classify images with a packed model, or a run's test images with its network."""

import argparse
from pathlib import Path

from bclightning.cli.parser import Arguments
from bclightning.errors import UserError
from bclightning.runs.folder import RunFolder

DESCRIPTION = (
    "Classify images. With a packed model, which bcl export writes: the files of --images. With a "
    "run: its test images, into a CSV file."
)


def add_arguments(parser: Arguments) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "source", nargs="?", metavar="MODEL|RUN", help="File of a packed model, or a run."
    )
    parser.add_argument(
        "--run", metavar="RUN", help="Run: its folder, or its id below results/runs."
    )
    parser.add_argument(
        "--images",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="PNG, JPEG, BMP or WebP files, or .npy arrays of raw pixels: (height, width), "
        "(channels, height, width) or (count, channels, height, width).",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="CSV file for all scores; of a run, predictions.csv if left out.",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="Configuration of --ckpt_path, where there is no run."
    )
    parser.add_argument(
        "--ckpt_path", metavar="FILE", help="Checkpoint; the run's best one if left out."
    )
    parser.add_argument(
        "--data.root", dest="root", metavar="DIR", help="Folder of the data files, or BCL_DATA."
    )
    parser.add_argument(
        "--allow_code",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="Package or module whose classes a run that was not made here may use.",
    )
    parser.add_argument(
        "--trainer.accelerator",
        dest="accelerator",
        metavar="NAME",
        help="Where to compute: cpu, gpu or auto.",
    )


def run(options: argparse.Namespace) -> int:
    """Classify with a packed model if the source is a file, else with a run's network.

    Raises:
        UserError: There is no such file or run, or it cannot be used.
    """
    is_model = bool(options.source) and Path(options.source).is_file()
    if is_model and not options.images:
        raise UserError("say which images: bcl predict MODEL --images FILE ...")
    if not is_model:
        if options.images:
            raise UserError(
                "--images goes with a packed model, and no file "
                f"{options.source or 'of one'} was found; bcl export writes one"
            )
        if options.run or options.source:
            RunFolder.find(options.run or options.source)
    # Now that what can be checked before torch is imported is checked.
    from bclightning.cli import classify

    if is_model:
        classify.with_model(options)
    else:
        classify.with_run(options)
    return 0
