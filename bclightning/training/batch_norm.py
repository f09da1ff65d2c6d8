"""Batch-norm statistics of the weights that are evaluated, re-estimated on training images."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from bclightning.nn import evaluates_other_weights
from bclightning.nn.batch_norm import estimate_statistics_, images_in, tracking_batch_norms
from bclightning.training.isolation import (
    independent_loader,
    same_generators,
    same_random_state,
    without_loggers,
)
from bclightning.training.own_steps import STATISTICS_STEP, ways_to_run

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
            # What holds no tensor, such as a graph, is as large as its loader says.
            seen += images_in(batch) or getattr(self._loader, "batch_size", None) or 1
            if seen >= self._images:
                return


class ReestimateBatchNorm(Callback):
    """Validate and test with batch-norm statistics of the weights that are used there.

    After stochastic training the real weights are evaluated, while the running averages were
    collected under sampled ones; the error is then several times too high, and the best epoch is
    chosen by chance. At the first batch of each validation and test, in a training run or by
    itself, the statistics are re-estimated on training images, for the weights that are in place
    then: those of Lightning's `EMAWeightAveraging`, for example. After it they are put back, so
    that weights, random numbers, logs and checkpoints are as if this had not been there. A network
    that is evaluated with the weights of its training, or that keeps no such statistics, is left
    alone, and so is Lightning's check of a few batches before training. For predictions,
    `bclightning.reestimate_batch_norm_` replaces the statistics for good.

    The images come from the data module's ``statistics_dataloader`` where it has one, else from the
    training batches of the run, the data module or the module. The module's own steps run on them,
    on a copy of the module, without gradients and without logging: ``validation_step`` (where there
    is none, ``test_step``); where that cannot take a training batch or passes no normalization,
    ``training_step``, unless it steps optimizers itself; then ``forward``, with the batch or what
    it begins with. A module with a ``statistics_step(batch)`` says itself how a training batch runs
    through the network; it is called on the module and must change nothing. Where nothing of this
    runs, or there are no images, a warning says so, and the statistics stay as they are; so do
    those of a normalization that no batch passes, which a warning names.

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
        self._at_start: _Snapshot | None = None
        self._statistics: _Replacement | None = None
        self._swapped = False

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the statistics, to see whether somebody swaps them for the evaluation."""
        self._begin(trainer, pl_module)

    on_test_start = on_validation_start

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Re-estimate the statistics before the first batch, when all weights are in place."""
        if self._at_start is not None:
            own, self._at_start = self._at_start, None
            self._swapped = not own.in_place()
            self._estimate(trainer, pl_module, _Snapshot(own.places) if self._swapped else own)
        if self._statistics is not None:
            self._statistics.put_in()

    on_test_batch_start = on_validation_batch_start

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Put the statistics back that somebody has swapped in, and will swap out again."""
        if self._statistics is None:
            return
        if trainer.world_size > 1:
            # DDP has given every process the first one's buffers, which are ours too.
            self._statistics.accept()
        if self._swapped:
            # They may be swapped out before any hook of ours, and must not take ours with them.
            self._statistics.put_back()

    on_test_batch_end = on_validation_batch_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the statistics of training back."""
        self._end()

    on_test_end = on_validation_end

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Put the statistics of training back."""
        self._end()

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end()
        self.estimated = False
        if trainer.sanity_checking or not (self.always or evaluates_other_weights(pl_module)):
            return
        places = _places_in(pl_module)
        # A lazy normalization has no statistics before its first batch.
        if places and not any(map(is_lazy, places)):
            self._at_start = _Snapshot(places)

    def _end(self) -> None:
        if self._statistics is not None:
            self._statistics.put_back()
        self._statistics = self._at_start = None

    def _estimate(self, trainer: Trainer, pl_module: LightningModule, own: "_Snapshot") -> None:
        name = type(pl_module).__name__
        try:
            with same_random_state(), without_loggers(trainer):
                values, unreached, way = self._estimated(trainer, pl_module)
        except _NotEstimatedError as reason:
            rank_zero_warn(
                f"{name} is evaluated with the batch-norm statistics of the weights that training "
                f"sampled, so its error is likely too high: {reason}; or estimate them first, with "
                "bclightning.reestimate_batch_norm_"
            )
            return
        self._statistics = _Replacement(own, values)
        self.estimated = True
        if unreached:
            rank_zero_warn(
                f"no training batch passed through {', '.join(unreached)} in the {way} of {name}, "
                "so the batch-norm statistics there are those of training; if the evaluation uses "
                f"them, give {name} a method {STATISTICS_STEP}(batch) that runs the whole network"
            )

    def _estimated(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> tuple["_Snapshot", list[str], str]:
        """The values, the normalizations that no batch passed, and what ran the batches."""
        loader = self._loader(trainer, pl_module)
        failures: dict[str, str] = {}
        with same_generators(loader), trainer.precision_plugin.val_step_context():
            for way in ways_to_run(pl_module, trainer):
                batches = self._batches(trainer, pl_module, loader)
                try:
                    unreached = estimate_statistics_(way.module, batches, way.run)
                except _NotEstimatedError:
                    raise
                except Exception as error:  # a step of somebody else's must not end the run
                    said = str(error).partition("\n")[0]
                    failures.setdefault(way.name, f"failed with {type(error).__name__}: {said}")
                    continue
                if len(unreached) < len(tracking_batch_norms(way.module)):
                    return _Snapshot(_places_in(way.module)), unreached, way.name
                failures.setdefault(way.name, "passed no batch normalization")
        if STATISTICS_STEP in failures:
            raise _NotEstimatedError(
                f"let its {STATISTICS_STEP} run the network on a training batch, which "
                f"{failures[STATISTICS_STEP]}"
            )
        tried = "".join(f"; its {name} {what}" for name, what in failures.items())
        raise _NotEstimatedError(
            f"give it a method {STATISTICS_STEP}(batch) that runs the network on a training batch"
            f"{tried}"
        )

    def _batches(
        self, trainer: Trainer, pl_module: LightningModule, loader: Any
    ) -> Iterator[tuple[int, Any]]:
        """The training batches and their indices, as the module's steps are given them."""
        datamodule = getattr(trainer, "datamodule", None)
        hooks: Any = pl_module
        if datamodule is not None and is_overridden("on_before_batch_transfer", datamodule):
            hooks = datamodule
        for index, batch in enumerate(_loaded(_FirstImages(loader, self.images))):
            batch = trainer.precision_plugin.convert_input(batch)
            batch = hooks.on_before_batch_transfer(batch, 0)
            yield index, trainer.strategy.batch_to_device(batch)

    def _loader(self, trainer: Trainer, pl_module: LightningModule) -> Any:
        # A data module of the user's own may not offer a fixed subset; its training batches do.
        datamodule = getattr(trainer, "datamodule", None)
        fixed = getattr(datamodule, "statistics_dataloader", None)
        if trainer.state.fn == TrainerFn.FITTING:
            return fixed(self.images) if fixed else independent_loader(trainer.train_dataloader)
        try:
            if datamodule is not None and (fixed or is_overridden("train_dataloader", datamodule)):
                # Lightning has set it up for the evaluation alone.
                datamodule.setup("fit")
                if fixed:
                    return fixed(self.images)
                return independent_loader(datamodule.train_dataloader())
            if is_overridden("train_dataloader", pl_module):
                return independent_loader(pl_module.train_dataloader())
        except Exception as error:  # a network may be evaluated where its training data are not
            raise _NotEstimatedError(_data_that_failed(error)) from error
        raise _NotEstimatedError("give the trainer a datamodule that has training batches")


class _NotEstimatedError(Exception):
    """There are no statistics to evaluate with; what to do about it."""


def _loaded(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches, with an error of ours for one in loading them."""
    none = True
    try:
        for batch in batches:
            none = False
            yield batch
    except Exception as error:
        raise _NotEstimatedError(_data_that_failed(error)) from error
    if none:
        raise _NotEstimatedError("let its training data hold at least one batch")


def _data_that_failed(error: Exception) -> str:
    return f"let its training data load, which failed: {error}"


class _Snapshot:
    """The values that batch-norm statistics had at one moment."""

    def __init__(self, places: list[Tensor]) -> None:
        self.places = places
        self.values = [place.clone() for place in places]

    def in_place(self, places: list[Tensor] | None = None) -> bool:
        """Whether the values are in these places, or in their own."""
        return all(map(torch.equal, self.places if places is None else places, self.values))

    def put(self, places: list[Tensor]) -> None:
        """Write the values to these places."""
        for place, value in zip(places, self.values, strict=True):
            place.copy_(value)


class _Replacement:
    """Statistics that take the place of a module's own for a while."""

    def __init__(self, own: _Snapshot, others: _Snapshot) -> None:
        self._own = own
        self._others = others
        # Where the module itself ran, they are in place already; to put them there again is cheap.
        self._in = False

    def put_in(self) -> None:
        if not self._in:
            self._others.put(self._own.places)
        self._in = True

    def accept(self) -> None:
        """Take what is in place now for what was put in."""
        self._others = _Snapshot(self._own.places)

    def put_back(self) -> None:
        """Put the module's own back, where nobody has put something else there meanwhile."""
        if self._in and self._others.in_place(self._own.places):
            self._own.put(self._own.places)
        self._in = False


def _places_in(module: nn.Module) -> list[Tensor]:
    return [
        buffer for norm in tracking_batch_norms(module) for buffer in norm.buffers(recurse=False)
    ]
