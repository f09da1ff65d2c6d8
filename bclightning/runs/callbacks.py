"""Callbacks of a run: random numbers by epoch, and an early end."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

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
