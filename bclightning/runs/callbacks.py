"""Callbacks of a run: random numbers by epoch, an early end, and what resuming takes."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch import Tensor

from bclightning.seeds import RunSeeds


class SeedEachEpoch(Callback):
    """Seed Python's, NumPy's and torch's generators at each epoch from (seed, epoch, rank).

    What an epoch draws (dropout, stochastic weights) then does not depend on what was drawn before
    it, and a run that was stopped resumes from the checkpoint at the end of an epoch as if it had
    never stopped. The seeds are set before a data loader draws its order, which with
    ``shuffle=True`` it does from torch's generator, and again at the first batch, after it has.

    Args:
        seeds: Seeds of the run.

    Example:
        >>> seeding = SeedEachEpoch(RunSeeds(7))
        >>> trainer = Trainer(callbacks=[seeding], accelerator="cpu", logger=False)
    """

    def __init__(self, seeds: RunSeeds) -> None:
        self.seeds = seeds
        self._begun: int | None = None

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Set the seeds of the epoch that follows, whose loader begins before the epoch does."""
        self._begun = checkpoint["epoch"] + 1
        self._seed(self._begun, trainer.global_rank)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the seeds before the loader begins, unless it has."""
        if trainer.current_epoch != self._begun:
            self._seed(trainer.current_epoch, trainer.global_rank)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the seeds when an epoch begins."""
        if batch_idx == 0:
            self._seed(trainer.current_epoch, trainer.global_rank)

    def _seed(self, epoch: int, rank: int) -> None:
        seed = self.seeds.draws(epoch, rank)
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)


class FirstEpochs(Callback):
    """Stop after some epochs, while learning rates decay as for all that were asked for.

    Args:
        epochs: Number of epochs, counted from the run's beginning.

    Example:
        >>> trainer = Trainer(
        ...     max_epochs=100, callbacks=[FirstEpochs(2)], accelerator="cpu", logger=False
        ... )
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask the trainer to stop once they are done."""
        if trainer.current_epoch + 1 >= self.epochs:
            trainer.should_stop = True


# Key of a checkpoint's last values of what `ReduceLROnPlateau` monitors.
PLATEAU_METRICS = "plateau_metrics"


class ResumeAfterEpoch(Callback):
    """Resume after the epoch whose end the checkpoint was written at, as if nothing had happened.

    Lightning by itself ends that epoch once more where ``max_steps`` is given, forgets the epoch's
    step of `ReduceLROnPlateau`, which comes after the checkpoint, and trains on where
    `EarlyStopping` had said to stop.

    Example:
        >>> trainer = Trainer(callbacks=[ResumeAfterEpoch()], accelerator="cpu", logger=False)
    """

    def __init__(self) -> None:
        self._resumed_step: int | None = None
        self._metrics: dict[str, Tensor] = {}
        self._max_steps: int | None = None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the values for the step that comes after."""
        metrics = trainer.callback_metrics
        monitored = [c.monitor for c in _plateau_schedulers(trainer, pl_module)]
        values = {name: metrics[name].detach().cpu() for name in monitored if name in metrics}
        if values:
            checkpoint[PLATEAU_METRICS] = values

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note how far the checkpoint is."""
        self._resumed_step = checkpoint["global_step"]
        self._metrics = checkpoint.get(PLATEAU_METRICS, {})

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare for what Lightning restores next, which is the state of its loops."""
        if self._resumed_step is None:
            return
        if -1 < self._resumed_step < trainer.max_steps:
            # With a limit of steps, a loop takes a checkpoint for one in mid-epoch.
            self._max_steps = trainer.max_steps
            trainer.fit_loop.epoch_loop.max_steps = -1
        if any(c.wait_count >= c.patience for c in _early_stoppings(trainer)):
            trainer.should_stop = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the limit back, and take the step that came after the checkpoint."""
        if self._max_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps = self._max_steps
            self._max_steps = None
        for config in _plateau_schedulers(trainer, pl_module):
            # The number of finished epochs is what Lightning compares with the frequency.
            if config.monitor in self._metrics and trainer.current_epoch % config.frequency == 0:
                pl_module.lr_scheduler_step(config.scheduler, self._metrics[config.monitor])
        self._metrics = {}
        self._resumed_step = None


def _plateau_schedulers(trainer: Trainer, module: LightningModule) -> list[LRSchedulerConfig]:
    """Configurations of the schedulers that Lightning steps with a metric at an epoch's end."""
    if not module.automatic_optimization:
        return []
    configs = trainer.lr_scheduler_configs
    return [c for c in configs if c.reduce_on_plateau and c.interval == "epoch"]


def _early_stoppings(trainer: Trainer) -> list[EarlyStopping]:
    return [c for c in trainer.early_stopping_callbacks if isinstance(c, EarlyStopping)]
