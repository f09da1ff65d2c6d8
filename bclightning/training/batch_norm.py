"""Batch-norm statistics of the weights that are evaluated, re-estimated on training images."""

import contextlib
import copy
from collections.abc import Iterable, Iterator
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.utils.data import DataLoader

from bclightning.nn import (
    evaluates_other_weights,
    preserving_batch_norm,
    reestimate_batch_norm_,
)
from bclightning.nn.batch_norm import tracking_batch_norms

STATISTICS_IMAGES = 5000
"""Number of training images, at most, that batch-norm statistics are re-estimated from.

The same when an epoch is chosen and when the chosen network is judged: what is chosen is what is
tested. More change the error by less than another seed does, and cost a pass over the data set at
each validation.
"""


def statistics_batches(datamodule: LightningDataModule) -> Iterable[Any]:
    """The training batches that batch-norm statistics are re-estimated from.

    Args:
        datamodule: Data module, set up for ``fit``. Its ``statistics_dataloader(limit)`` gives the
            images, where it has one; else its training batches do.

    Returns:
        Batches that can be iterated over more than once.

    Example:
        >>> from bclightning.data import Digits
        >>> data = Digits()
        >>> sum(len(labels) for _, labels in statistics_batches(data))
        1197
    """
    fixed = getattr(datamodule, "statistics_dataloader", None)
    if fixed is not None:
        return fixed(STATISTICS_IMAGES)
    return _FirstImages(datamodule.train_dataloader(), STATISTICS_IMAGES)


class _FirstImages:
    """The first batches of a loader, until they hold so many images."""

    def __init__(self, loader: Iterable[Any], images: int) -> None:
        self._loader = loader
        self._images = images

    def __iter__(self) -> Iterator[Any]:
        seen = 0
        for batch in self._loader:
            yield batch
            seen += len(_inputs_of(batch))
            if seen >= self._images:
                return


class ReestimateBatchNorm(Callback):
    """Validate and test with batch-norm statistics of the weights that are used there.

    After stochastic training the real weights are evaluated, while the running averages were
    collected under sampled ones; the error is then several times too high, and the best epoch is
    chosen by chance. Before each validation and test, in a training run or by itself, the
    statistics are re-estimated on training images, and put back after it, so that training and
    checkpoints are as if this had not been there. A network that is evaluated with the weights of
    its training, or that keeps no such statistics, is left alone, and so is Lightning's check of a
    few batches before training. For predictions, `bclightning.reestimate_batch_norm_` replaces the
    statistics for good.

    The images come from the data module's ``statistics_dataloader`` where it has one, else from the
    training batches of the run, the data module or the module: each batch is what the module's
    ``forward`` takes, or a tuple or list that begins with it. Where there are none, a warning says
    so, and the statistics stay as they are.

    `Classifier` and `BinaryConnect` bring this along.

    Args:
        images: Number of training images to use at most.
        always: Whether to re-estimate also for a network that is evaluated with the weights of its
            training.

    Attributes:
        estimated: Whether the last evaluation had statistics of its own.

    Example:
        >>> trainer = Trainer(callbacks=[ReestimateBatchNorm()], accelerator="cpu", logger=False)
    """

    def __init__(self, images: int = STATISTICS_IMAGES, always: bool = False) -> None:
        self.images = images
        self.always = always
        self.estimated = False
        self._preserved = contextlib.ExitStack()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Re-estimate the statistics."""
        self._estimate(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the statistics of training back."""
        self._preserved.close()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Re-estimate the statistics."""
        self._estimate(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the statistics of training back."""
        self._preserved.close()

    def _estimate(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.estimated = False
        if trainer.sanity_checking or not tracking_batch_norms(pl_module):
            return
        if not (self.always or evaluates_other_weights(pl_module)):
            return
        self._preserved.enter_context(preserving_batch_norm(pl_module))
        try:
            with trainer.precision_plugin.val_step_context():
                reestimate_batch_norm_(pl_module, self._batches(trainer, pl_module))
            self.estimated = True
        except _NoImagesError as reason:
            self._preserved.close()
            rank_zero_warn(
                f"{type(pl_module).__name__} is evaluated with the batch-norm statistics of the "
                f"weights that training sampled, so its error is likely too high: {reason}; "
                "or estimate them first, with bclightning.reestimate_batch_norm_"
            )

    def _batches(self, trainer: Trainer, pl_module: LightningModule) -> Iterator[Tensor]:
        if not is_overridden("forward", pl_module):
            raise _NoImagesError("give the module a forward that takes a batch's inputs")
        for batch in _FirstImages(self._loader(trainer, pl_module), self.images):
            converted = trainer.precision_plugin.convert_input(batch)
            yield _inputs_of(trainer.strategy.batch_to_device(converted))

    def _loader(self, trainer: Trainer, pl_module: LightningModule) -> Any:
        # A data module of the user's own may not offer a fixed subset; its training batches do.
        datamodule = getattr(trainer, "datamodule", None)
        fixed = getattr(datamodule, "statistics_dataloader", None)
        if trainer.state.fn == TrainerFn.FITTING:
            return fixed(self.images) if fixed else _independent_copy(trainer.train_dataloader)
        try:
            if datamodule is not None and (fixed or is_overridden("train_dataloader", datamodule)):
                # Lightning has set it up for the evaluation alone.
                datamodule.setup("fit")
                return fixed(self.images) if fixed else datamodule.train_dataloader()
            if is_overridden("train_dataloader", pl_module):
                return pl_module.train_dataloader()
        except Exception as error:  # a network may be evaluated where its training data are not
            raise _NoImagesError(f"let its training data load, which failed: {error}") from error
        raise _NoImagesError("give the trainer a datamodule that has training batches")


class _NoImagesError(Exception):
    """There are no images to estimate statistics from; what to do about it."""


def _inputs_of(batch: Any) -> Tensor:
    """What a module's forward takes of a batch, as `torch.optim.swa_utils.update_bn` sees it."""
    inputs = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if not isinstance(inputs, Tensor):
        raise _NoImagesError("give batches that are a tensor or begin with one")
    return inputs


def _independent_copy(loader: Any) -> Any:
    """A loader of the same batches that has no part in an epoch that is under way."""
    if not isinstance(loader, DataLoader):
        return loader
    loader = copy.copy(loader)
    # A loader with persistent workers has one iterator; to restart that would end the epoch.
    loader._iterator = None
    return loader
