"""A trained network rebuilt from its own run, or from a configuration and a checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

from bclightning.errors import UserError
from bclightning.evaluation import Batches
from bclightning.runs.checkpoint import load_checkpoint
from bclightning.runs.config import RunCLI, take_option
from bclightning.runs.folder import RunFolder
from bclightning.runs.hyperparameters import overrides
from bclightning.runs.job import SETTINGS
from bclightning.runs.notices import quiet_lightning
from bclightning.training import Classifier

SHOWN = {
    "--run": "The run: its folder, or its id below results/runs. Its own configuration and best "
    "checkpoint are used.",
    "--ckpt_path": "Another checkpoint; needed with --config and without --run.",
}


@dataclass(frozen=True)
class Rebuilt:
    """A trained network as a command line names it, and what it takes to evaluate it.

    Attributes:
        model: The network, with its weights.
        datamodule: Its data, prepared.
        trainer: A trainer, which says device and precision.
        name: The run, or the checkpoint, as it was named.
        folder: Of the run; ``None`` where a checkpoint alone was named.
        as_recorded: Whether no option makes it something else than the run's record describes.
    """

    model: Classifier
    datamodule: LightningDataModule
    trainer: Trainer
    name: str
    folder: RunFolder | None
    as_recorded: bool


def statistics_batches(datamodule: LightningDataModule) -> Batches:
    """Training images in a fixed order where the data module offers them, else its batches."""
    source = getattr(datamodule, "statistics_dataloader", None) or datamodule.train_dataloader
    return source()


def has_loader(datamodule: LightningDataModule, name: str) -> bool:
    """Whether a data module, of a user's own perhaps, has one of Lightning's loaders.

    Example:
        >>> has_loader(LightningDataModule(), "test_dataloader")
        False
    """
    return is_overridden(name, datamodule)


def require_loader(datamodule: LightningDataModule, name: str) -> None:
    """Make sure of a loader.

    Raises:
        UserError: The data module has none.
    """
    if not has_loader(datamodule, name):
        raise UserError(f"{type(datamodule).__name__} has no {name}; give it one")


def load_weights(model: Classifier, path: str | Path) -> None:
    """Load the weights of a Lightning checkpoint into a model.

    Raises:
        UserError: The file is not a checkpoint, or it belongs to another network.
    """
    state = load_checkpoint(path)["state_dict"]
    if not any(key.startswith("network.") for key in state):
        state = {f"network.{key}": value for key, value in state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[1:2]
        raise UserError(
            f"the checkpoint {path} belongs to another network: {' '.join(first).strip()}"
        ) from error


def rebuilt(arguments: Sequence[str], command: str, shown: dict[str, str] | None = None) -> Rebuilt:
    """Rebuild a trained network, its data and a trainer from a command line that names a run.

    Args:
        arguments: The command line after the command's name.
        command: The command.
        shown: More options, which the caller has taken out already, with their help.

    Raises:
        UserError: There is no such run, or what is asked for does not fit it.
    """
    run, rest = take_option(arguments, "--run")
    checkpoint, rest = take_option(rest, "--ckpt_path")
    helping = {"-h", "--help"} & set(rest)
    folder = None
    recorded = checkpoint is None and not overrides(rest)
    if run is not None:
        folder = RunFolder.find(run)
        rest = ["--config", str(folder.config), *rest]
        checkpoint = checkpoint or str(folder.checkpoints / "best.ckpt")
    elif checkpoint is None and not helping:
        raise UserError(
            f"say which trained network: bcl {command} --run RUN, "
            f"or bcl {command} --config FILE --ckpt_path CHECKPOINT"
        )
    quiet_lightning()
    cli = RunCLI(
        rest,
        prog=f"bcl {command}",
        description="Evaluate a trained network.",
        settings=SETTINGS,
        shown={**SHOWN, **(shown or {})},
    )
    model, datamodule = cli.build_modules()
    trainer = cli.build_trainer()
    load_weights(model, str(checkpoint))
    datamodule.prepare_data()
    return Rebuilt(model, datamodule, trainer, run or str(checkpoint), folder, recorded)
