"""Random numbers as a function of the seed and the epoch, so that a resumed run draws the same."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from bclightning.seeds import derive_seed


class SeedEachEpoch(Callback):
    """Seed Python's, NumPy's and torch's generators at each epoch from (seed, epoch, rank).

    What an epoch draws (dropout, stochastic weights) then does not depend on what was drawn before
    it, and a run that was stopped goes on, from the checkpoint at the end of an epoch, as if it
    never had. The seeds are set at the first batch, after the data loader has drawn its own.

    Args:
        seed: The run's seed.

    Example:
        >>> SeedEachEpoch(0).seed_of(epoch=3) == SeedEachEpoch(0).seed_of(epoch=3)
        True
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def seed_of(self, epoch: int, rank: int = 0) -> int:
        """The seed of an epoch on one of several processes."""
        return derive_seed(self.seed, epoch, rank)

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Set the seeds when an epoch begins."""
        if batch_idx == 0:
            seed = self.seed_of(trainer.current_epoch, trainer.global_rank)
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
