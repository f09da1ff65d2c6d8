"""Checkpoints that survive a kill at any moment, and execute nothing when they are loaded."""

import os
import pickle
import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from bclightning.errors import UserError
from bclightning.runs.metrics_csv import MetricsTable, shortest
from bclightning.storage import TEMPORARY_SUFFIX, flush_folder, replacing
from bclightning.vocabulary import VAL_ERROR, MonitorMode


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Load a Lightning checkpoint, of tensors and plain data only, to the CPU.

    Raises:
        UserError: The file is missing, damaged, or not a Lightning checkpoint; nothing in it was
            executed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"the checkpoint {path} holds more than tensors and plain data, or is no checkpoint, "
            "and is not loaded, since loading it could execute code"
        ) from error
    except Exception as error:  # a damaged file makes the parsers fail in whatever way
        raise UserError(
            f"the checkpoint {path} is damaged or not a checkpoint; give another one"
        ) from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(
            f"{path} is not a checkpoint of a Lightning run: it has no 'state_dict'; "
            "a bare state_dict can be saved as {'state_dict': ...}"
        )
    return checkpoint


class WholeFileCheckpointIO(TorchCheckpointIO):
    """Write checkpoints whole or not at all, and read them without executing anything.

    Lightning writes through another folder and moves without flushing, which a kill or a full disk
    can tear.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,
    ) -> None:
        """Save to a temporary file beside `path`, flush, and let it take the place of `path`.

        Raises:
            UserError: The disk is full; an older checkpoint at `path` is intact.
        """
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                # After a failed write torch closes its archive, fails in that too, and raises the
                # second error, in the context of the one that says what is wrong.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Load tensors and plain data; see `load_checkpoint`."""
        return load_checkpoint(path)


class RunCheckpoint(Checkpoint):
    """Keep, at the end of each epoch, what a run is resumed from and what it will be judged by.

    First the epoch's metrics, then ``last.ckpt``, and ``best.ckpt`` where the monitored metric is
    the best so far; ties go to the later epoch, as in the paper's experiments. A run that is killed
    between any two of these resumes from ``last.ckpt`` to the same end.

    Args:
        folder: Folder of the checkpoints.
        table: Table of the run's metrics.
        monitor: Metric that says which epoch is the best.
        mode: ``min`` where the lowest value is the best, ``max`` where the highest is.

    Attributes:
        best_epoch: Epoch of ``best.ckpt``, counted from 0; ``None`` before the first.
        best: The monitored metric at that epoch.
    """

    def __init__(
        self,
        folder: Path,
        table: MetricsTable,
        monitor: str = VAL_ERROR,
        mode: MonitorMode = "min",
    ) -> None:
        self.folder = folder
        self.table = table
        self.monitor = monitor
        self.mode = mode
        self.best_epoch: int | None = None
        self.best = float("inf") if mode == "min" else float("-inf")
        self._last_epoch: int | None = None
        self._validated = False
        self._seconds_before = 0.0
        self._started = time.monotonic()

    @property
    def state_key(self) -> str:
        """The name of this callback's state in checkpoints, whatever the class is called."""
        return "RunCheckpoint"

    def is_best(self, value: float) -> bool:
        """Whether a value of the monitored metric is as good as the best so far, or better."""
        return value <= self.best if self.mode == "min" else value >= self.best

    @property
    def seconds(self) -> float:
        """Time in training and validation so far, over all parts of a resumed run."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def last_path(self) -> Path:
        """The checkpoint of the last finished epoch."""
        return self.folder / "last.ckpt"

    @property
    def best_path(self) -> Path:
        """The checkpoint of the best epoch so far."""
        return self.folder / "best.ckpt"

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that this epoch has a validation of its own, which a sanity check is not."""
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write metrics and checkpoints; Lightning calls this after all other callbacks."""
        metrics = {
            key: shortest(value.item()) if value.dtype == torch.float32 else float(value)
            for key, value in sorted(trainer.callback_metrics.items())
        }
        epoch = trainer.current_epoch
        if self._validated:
            if self.monitor not in metrics:
                raise UserError(
                    f"the best epoch is chosen by {self.monitor}, which was not logged; log it in "
                    "the validation step, or name another metric with --monitor: logged were "
                    f"{', '.join(metrics) or 'none'}"
                )
            if self.is_best(metrics[self.monitor]):
                self.best, self.best_epoch = metrics[self.monitor], epoch
        else:
            # What Lightning still shows of an earlier epoch's validation is not this epoch's.
            metrics = {
                key: value
                for key, value in metrics.items()
                if key != self.monitor and not key.startswith(("val/", "val_"))
            }
        self._validated = False
        self._last_epoch = epoch
        if trainer.is_global_zero:
            self.table.append(epoch, metrics)
        trainer.save_checkpoint(self.last_path)
        if trainer.is_global_zero and self.best_epoch == epoch:
            self._keep_as_best()

    def state_dict(self) -> dict[str, Any]:
        """The best epoch so far and the last one, for the checkpoint."""
        return {
            "best_epoch": self.best_epoch,
            "best": self.best,
            "last_epoch": self._last_epoch,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from a checkpoint: drop metrics of later epochs, and make sure of the best one."""
        self.best_epoch = state_dict["best_epoch"]
        self.best = state_dict["best"]
        self._last_epoch = state_dict["last_epoch"]
        self._seconds_before = state_dict["seconds"]
        if self._last_epoch is None:
            # Lightning's finders of rates and batch sizes go back to before the first epoch.
            return
        self.table.cut_after(self._last_epoch)
        if self.best_epoch == self._last_epoch:
            # The run may have been killed after last.ckpt and before best.ckpt was its equal.
            self._keep_as_best()

    def _keep_as_best(self) -> None:
        # A second name for the same content costs no second write of a large file. last.ckpt is
        # never written to, only replaced, so best.ckpt keeps this epoch.
        if self.best_path.exists() and self.best_path.samefile(self.last_path):
            return
        temporary = self.folder / f".best.ckpt{TEMPORARY_SUFFIX}"
        temporary.unlink(missing_ok=True)
        try:
            os.link(self.last_path, temporary)
        except OSError:
            # Not every file system has hard links.
            with replacing(self.best_path) as file:
                file.write(self.last_path.read_bytes())
            return
        os.replace(temporary, self.best_path)
        flush_folder(self.folder)
