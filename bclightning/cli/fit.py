"""`bcl fit`: train a network, or resume a run."""

import os
from dataclasses import dataclass

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console

from bclightning.cli.tables import print_report
from bclightning.runs.config import NamedRun, RunConfig, add_allow_code
from bclightning.runs.progress import RunProgress
from bclightning.runs.run import fit, is_first_process
from bclightning.runs.slurm import refuse_copies, resumed_when_requeued

DESCRIPTION = (
    "Train a network. The settings come from --config (a recipe by bare name, or a YAML file) and "
    "from options as Lightning users know them: --trainer.max_epochs 3 --data.batch_size 50 "
    "--model.network.regularizer none|dropout|deterministic|stochastic."
)


@dataclass
class FitOptions:
    """Options of the command.

    Args:
        threads: Threads that compute on a CPU; when left out, OMP_NUM_THREADS, else one where the
            network is too small for more, else one for each core. A resumed run keeps its number.
    """

    threads: int | None = None


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "--resume",
        dest="run",
        metavar="RUN",
        action=NamedRun,
        help="Stopped run to resume: its folder, or its id below results/runs.",
    )
    add_allow_code(parser)

    parser.add_class_arguments(FitOptions, None)


def run(options: Namespace) -> int:
    """Train, and print the closing table; of a run that is finished already, print it again."""
    config = RunConfig.from_parsed(options, [FitOptions])
    refuse_copies(config["trainer.devices"], config["trainer.num_nodes"], os.environ)
    config = resumed_when_requeued(config, os.environ)
    shown = config["trainer.enable_progress_bar"] is not False
    record = fit(config, callbacks=[RunProgress()] if shown else [], threads=options.threads)
    if is_first_process():
        print_report(Console(), record, config.folder)
    return 0
