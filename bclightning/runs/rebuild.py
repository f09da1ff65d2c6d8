"""A trained network rebuilt from its configuration and a checkpoint."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

from bclightning.errors import UserError
from bclightning.runs.checkpoint_io import load_checkpoint
from bclightning.runs.config import RunConfig
from bclightning.runs.folder import RunFolder
from bclightning.runs.late_layers import make_late_layers
from bclightning.runs.record import RunRecord
from bclightning.runs.warm_start import last_checkpoint, run_named_by
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


def load_weights(model: LightningModule, path: str | Path) -> dict[str, Any]:
    """Load the weights of a Lightning checkpoint into a model.

    Args:
        model: The model; a `Classifier` also takes the weights of a bare network.
        path: Path of the checkpoint.

    Returns:
        The whole checkpoint.

    Raises:
        UserError: The file is not a checkpoint, or it belongs to another network.
    """
    checkpoint = load_checkpoint(path)
    state = checkpoint["state_dict"]
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
    return checkpoint


def load_first_weights(model: LightningModule, start: str) -> dict[str, Any]:
    """Load a run's first weights.

    Args:
        model: The model.
        start: Path of a checkpoint, folder of a run, whose last epoch is meant, or its id below
            ``results/runs``.

    Returns:
        Where they come from, for the record: ``sha256`` of the checkpoint, the ``epoch`` that it
        was written at the end of, counted from 0, and, where it lies in a run's folder, that run's
        ``run_id`` and ``experiment``.

    Raises:
        UserError: There is no such checkpoint, or it belongs to another network.
    """
    folder = run_named_by(start)
    path = Path(start) if folder is None else last_checkpoint(folder)
    checkpoint = load_weights(model, path)
    with path.open("rb") as file:
        origin: dict[str, Any] = {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    if isinstance(checkpoint.get("epoch"), int):
        origin["epoch"] = checkpoint["epoch"]
    record = RunFolder(path.absolute().parent.parent).record
    if record.is_file():
        of_run = RunRecord.read(record)
        origin |= {"run_id": of_run.run_id, "experiment": of_run.experiment}
    return origin
