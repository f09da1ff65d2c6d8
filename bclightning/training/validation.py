"""Validation that is not misled by batch-norm statistics of other weights."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader

from bclightning.nn import (
    preserving_batch_norm,
    reestimate_batch_norm_,
    trains_and_evaluates_differently,
)
from bclightning.nn.batch_norm import _tracking


class ReestimateBatchNorm(Callback):
    """Validate with batch-norm statistics of the weights that validation uses.

    After stochastic training the real weights are evaluated, while the running averages were
    collected under sampled ones; the error is then several times too high, and the best epoch is
    chosen by chance. Before each validation the statistics are estimated anew on training images,
    and put back after it, so that training and checkpoints are as if this had not been there. A
    network that is evaluated with the weights of its training, or that keeps no such statistics, is
    left alone, and so is Lightning's check of a few batches before training.

    Args:
        images: How many training images to use at most.

    Example:
        >>> trainer = Trainer(callbacks=[ReestimateBatchNorm()], accelerator="cpu", logger=False)
    """

    def __init__(self, images: int = 5000) -> None:
        self.images = images
        self._preserved = contextlib.ExitStack()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Estimate the statistics anew, in training runs only."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        if not _tracking(pl_module) or not trains_and_evaluates_differently(pl_module):
            return
        self._preserved.enter_context(preserving_batch_norm(pl_module))
        with trainer.precision_plugin.val_step_context():
            reestimate_batch_norm_(pl_module, self._batches(trainer))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the statistics of training back."""
        self._preserved.close()

    def _batches(self, trainer: Trainer) -> Iterator[Tensor]:
        # A data module of the user's own may not offer a fixed subset; its training batches do.
        datamodule = getattr(trainer, "datamodule", None)
        source = getattr(datamodule, "statistics_dataloader", None)
        loader = source(self.images) if source else _afresh(trainer.train_dataloader)
        seen = 0
        for batch in loader or ():
            converted = trainer.precision_plugin.convert_input(batch)
            images, _ = trainer.strategy.batch_to_device(converted)
            yield images
            seen += len(images)
            if seen >= self.images:
                return


def _afresh(loader: Any) -> Any:
    """A loader of the same batches that has no part in an epoch that is under way."""
    if not isinstance(loader, DataLoader):
        return loader
    loader = copy.copy(loader)
    # A loader with persistent workers has one iterator, which to begin anew would end the epoch.
    loader._iterator = None
    return loader
