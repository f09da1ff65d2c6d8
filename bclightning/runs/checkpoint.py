"""Checkpoints that survive a kill at any moment."""

import os
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from bclightning.errors import UserError
from bclightning.runs.checkpoint_io import STATE_KEY, WholeFileCheckpointIO, load_checkpoint
from bclightning.runs.interrupt import stop_if_asked
from bclightning.runs.metrics_csv import MetricsTable, shortest
from bclightning.storage import TEMPORARY_SUFFIX, flush_folder, replacing
from bclightning.vocabulary import VAL_ERROR, MonitorMode

__all__ = ["RunCheckpoint", "WholeFileCheckpointIO", "as_recorded", "load_checkpoint"]


def as_recorded(value: torch.Tensor) -> float:
    """A logged metric as records and tables have it: no digits that its precision does not have.

    Example:
        >>> as_recorded(torch.tensor(2.16)), as_recorded(torch.tensor(2 / 3, dtype=torch.float64))
        (2.16, 0.6666666666666666)
    """
    return shortest(value.item()) if value.dtype == torch.float32 else float(value)


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
        started: Whether training began, after all that a resumed run restores.
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
        self.started = False

    @property
    def state_key(self) -> str:
        """The name of this callback's state in checkpoints, whatever the class is called."""
        return STATE_KEY

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
        self.started = True
        self._started = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that this epoch has a validation of its own, which a sanity check is not."""
        self._validated = not trainer.sanity_checking

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write metrics and checkpoints; Lightning calls this after all other callbacks."""
        metrics = {
            key: as_recorded(value) for key, value in sorted(trainer.callback_metrics.items())
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
        # Now that this epoch is kept.
        stop_if_asked()

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
