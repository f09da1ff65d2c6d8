"""A trained network rebuilt from its configuration and a checkpoint."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

from bclightning.errors import UserError
from bclightning.runs.checkpoint_io import load_checkpoint
from bclightning.runs.config import RunConfig
from bclightning.runs.folder import RunFolder
from bclightning.runs.late_layers import make_late_layers
from bclightning.runs.record import RunRecord
from bclightning.training import Classifier
from bclightning.vocabulary import TEST_ERROR


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network, and what it takes to evaluate it.

    Attributes:
        model: The network, with its weights.
        data: Its data, prepared.
        trainer: Trainer that says device and precision.
        name: Path of the run, or of the checkpoint.
        folder: Folder of the run; ``None`` where a checkpoint alone was named.
        record: Record of the run; ``None`` where options or another checkpoint make the network
            something else than the record describes.
        monitor: Metric that chose the best epoch.
        test_metric: Metric that a test reports.
        make_trainer: Makes a trainer for one evaluation, with the callbacks that it is given.
    """

    model: LightningModule
    data: LightningDataModule
    trainer: Trainer
    name: str
    folder: RunFolder | None
    record: RunRecord | None
    monitor: str
    test_metric: str
    make_trainer: Callable[[Sequence[Callback]], Trainer]


def rebuild(config: RunConfig, checkpoint: str | Path | None = None) -> TrainedNetwork:
    """Rebuild a trained network, its data and a trainer.

    Args:
        config: Configuration of a run (`RunConfig.from_run`), or any with a checkpoint beside it.
        checkpoint: Checkpoint to load; the run's best one if ``None``.

    Raises:
        UserError: There is no such checkpoint, or it belongs to another network.
    """
    folder = config.run
    if checkpoint is None and folder is None:
        raise UserError("a configuration without a run needs a checkpoint; give --ckpt_path")
    record = None
    if folder is not None and checkpoint is None and not config.changed and folder.record.exists():
        record = RunRecord.read(folder.record)
    if checkpoint is None and folder is not None:
        checkpoint = folder.checkpoints / "best.ckpt"
    built = config.build()
    trainer = config.build_trainer()
    make_late_layers(built.model, built.data, trainer)
    load_weights(built.model, str(checkpoint))
    built.data.prepare_data()
    return TrainedNetwork(
        built.model,
        built.data,
        trainer,
        str(checkpoint if folder is None else folder.path),
        folder,
        record,
        config["monitor"],
        reported_metric(config, built.model),
        config.build_evaluation_trainer,
    )


def reported_metric(config: RunConfig, model: LightningModule) -> str:
    """The metric that a test of a run reports.

    Args:
        config: Configuration of the run.
        model: Its LightningModule; a `Classifier` is always judged by its error.
    """
    if isinstance(model, Classifier):
        return TEST_ERROR
    return str(config["test_metric"] or config["monitor"].replace("val", "test", 1))


def load_weights(model: LightningModule, path: str | Path) -> None:
    """Load the weights of a Lightning checkpoint into a model.

    Args:
        model: The model; a `Classifier` also takes the weights of a bare network.
        path: Path of the checkpoint.

    Raises:
        UserError: The file is not a checkpoint, or it belongs to another network.
    """
    state = load_checkpoint(path)["state_dict"]
    bare = not any(str(key).startswith("network.") for key in state)
    if isinstance(model, Classifier) and bare:
        state = {f"network.{key}": value for key, value in state.items()}
    try:
        model.load_state_dict(state)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        lines = str(error).strip().splitlines()
        raise UserError(
            f"the checkpoint {path} belongs to another network: {' '.join(lines[1:2] or lines)}"
        ) from error
