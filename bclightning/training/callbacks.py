"""Callbacks that make and clip binary weights, for any LightningModule."""

import functools
import multiprocessing
import warnings
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import nn

from bclightning.errors import UserError
from bclightning.nn import (
    Binarization,
    BinaryLayer,
    binary_layers,
    clip_latent_weights_,
    convert_to_binary,
    draws,
)
from bclightning.nn.convert import refuse_shared_weights, skipped_modules
from bclightning.nn.loading import BINARY_LAYERS
from bclightning.training.batch_norm import ReestimateBatchNorm


class ClipWeights(Callback):
    """Hold a module to latent weights in [-1, 1] (section 2.4), and to weights that can be clipped.

    Every optimizer of torch clips the latent weights that it holds after each of its steps
    (`bclightning.nn.BinaryLayer`): under gradient accumulation, with several optimizers, and
    whenever an optimizer was made. This clips weights that come from elsewhere before the first
    step, and warns at the end of an epoch of weights that something else has changed. Where several
    processes train together, they get the same stochastic weights, as one process would have them
    for the whole mini-batch. A model without binary layers is left alone.

    Raises:
        UserError: At the start of training: latent weights are held in 16 bits, where small updates
            round to nothing, or shared with a real layer, which would be clipped with them.

    Example:
        >>> trainer = Trainer(callbacks=[ClipWeights()], accelerator="cpu", logger=False)
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the latent weights, and clip what comes from elsewhere."""
        layers = binary_layers(pl_module)
        for name, layer in layers.items():
            if layer.weight.dtype in (torch.float16, torch.bfloat16):
                raise UserError(
                    f"the latent weights of {name} are held in {layer.weight.dtype}, where small "
                    "updates round to nothing; train with --trainer.precision bf16-mixed or 32-true"
                )
        try:
            refuse_shared_weights(pl_module, layers)
        except TypeError as error:
            raise UserError(str(error)) from error
        clip_latent_weights_(pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Give all processes the draws of the first one, where several train together."""
        if batch_idx == 0 and trainer.world_size > 1:
            # At the next draw, when the seeds of the epoch are set.
            draws.share_draws(lambda: trainer.strategy.broadcast(torch.get_rng_state()))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave what follows to each process's own draws."""
        draws.share_draws(None)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Clip latent weights that no optimizer of torch has clipped, and warn of them.

        What follows the epoch is left to each process's own draws.
        """
        left = draws.share_draws(None)
        if left is not None and trainer.is_global_zero:
            # As if this process had drawn alone: the next epoch's draws are others.
            torch.set_rng_state(left)
        unclipped = [
            name
            for name, layer in binary_layers(pl_module).items()
            if layer.weight.numel() and bool((layer.weight.detach().abs() > 1).any())
        ]
        if unclipped:
            warnings.warn(
                f"latent weights of {unclipped[0]} have left [-1, 1]: something other than a step "
                "of a torch optimizer changes them; call bclightning.nn.clip_latent_weights_ after "
                "each change",
                stacklevel=2,
            )
            clip_latent_weights_(pl_module)


class BinaryConnect(ClipWeights):
    """Give any LightningModule binary weights: convert before training, clip after each step.

    The module needs to know nothing of this package. Its `Linear` and `Conv2d` layers become binary
    before the optimizer is made and a checkpoint is loaded, for every stage; also those that it
    makes in its own ``setup`` or ``configure_model``, and later ones when the next epoch starts.
    Layers that are binary already stay as they are, with their own binarization. Where the trainer
    starts processes that train (``ddp_spawn``, ``ddp_fork``, ``ddp_notebook``), the module of the
    process that started them is binary afterwards, too.

    Validation and test have batch-norm statistics of the weights that they use, which after
    stochastic training are not those of training; without, the error can be several times as high.
    This is done as by `ReestimateBatchNorm`, unless the trainer has such a callback already.

    Args:
        binarization: ``deterministic`` or ``stochastic``.
        skip: Modules that stay real: names of modules or shell patterns, or a function of (name,
            module); see `bclightning.nn.convert_to_binary`.
        reestimate_batch_norm: Whether validation and test have statistics of their own.
        scale_learning_rates: Whether binary weights have their learning rates scaled (section 2.5),
            whatever the optimizer and whoever sets its rates; without, stochastic gradient descent
            hardly trains. For optimizers whose groups are scaled already, as `make_optimizer` does,
            leave it out.

    Raises:
        ValueError: In `setup`: nothing to convert, or a pattern that matches nothing.
        TypeError: In `setup`: a layer that cannot be converted.
        UserError: At the start of training: learning rates would be scaled twice.

    Example:
        >>> binary = BinaryConnect("stochastic", skip=["head"])
        >>> trainer = Trainer(callbacks=[binary], accelerator="cpu", logger=False)
    """

    def __init__(
        self,
        binarization: Binarization = "deterministic",
        skip: list[str] | Callable[[str, nn.Module], bool] | None = None,
        reestimate_batch_norm: bool = True,
        scale_learning_rates: bool = False,
    ) -> None:
        super().__init__()
        self.binarization = binarization
        self.skip = skip if skip is not None else []
        self.reestimate_batch_norm = reestimate_batch_norm
        self.scale_learning_rates = scale_learning_rates

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Convert the module's layers, and those that its own hooks make afterwards."""
        self.convert_so_far(pl_module)
        last = "configure_model" if is_overridden("configure_model", pl_module) else "setup"
        if last != "setup":
            _call_after(pl_module, "setup", lambda: self.convert_so_far(pl_module))
        _call_after(pl_module, last, lambda: self.convert(pl_module))
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        if self.reestimate_batch_norm and not any(
            isinstance(callback, ReestimateBatchNorm) for callback in callbacks
        ):
            # Another list: Lightning is going through this one.
            trainer.callbacks = [ReestimateBatchNorm(), *callbacks]  # type: ignore[attr-defined]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Convert what was made since, check the latent weights, and clip them."""
        self.convert_so_far(pl_module)
        super().on_train_start(trainer, pl_module)
        if self.scale_learning_rates:
            _refuse_scaling_twice(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Convert what was made since."""
        self.convert_so_far(pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Convert what was made since."""
        self.convert_so_far(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Convert what was made since."""
        self.convert_so_far(pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Convert what was made since."""
        self.convert_so_far(pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Hand over to the process that started this one that the layers are binary."""
        fused = {
            id(layer)
            for module in pl_module.modules()
            if isinstance(module, nn.TransformerEncoderLayer)
            for layer in module.modules()
        }
        launcher = trainer.strategy.launcher
        started_by_another = launcher is not None and multiprocessing.parent_process() is not None
        for layer in binary_layers(pl_module).values():
            layer.set_scale_updates(False)
            # A fused layer has to be converted as a whole; the other process warns of its parts.
            layer.converts_loader = started_by_another and id(layer) not in fused

    def convert(self, module: nn.Module) -> None:
        """Convert what is neither binary already nor skipped: testing finds nothing left to do."""
        skipped = skipped_modules(module, self.skip)
        if self._left(module, skipped) or not binary_layers(module):
            self._convert(module, skipped)
        for layer in binary_layers(module).values():
            # Also where an earlier training of the module had it otherwise.
            if layer.scale_updates != self.scale_learning_rates:
                layer.set_scale_updates(self.scale_learning_rates)

    def convert_so_far(self, module: nn.Module) -> None:
        """Convert what there is so far, which may be nothing."""
        skipped = skipped_modules(module, self.skip, must_match=False)
        if self._left(module, skipped):
            self._convert(module, skipped)
        if self.scale_learning_rates:
            for layer in binary_layers(module).values():
                if not layer.scale_updates:
                    layer.set_scale_updates(True)

    def _left(self, module: nn.Module, skipped: set[int]) -> bool:
        return any(
            type(inner) in BINARY_LAYERS and id(inner) not in skipped for inner in module.modules()
        )

    def _convert(self, module: nn.Module, skipped: set[int]) -> None:
        convert_to_binary(
            module,
            self.binarization,
            lambda _, inner: id(inner) in skipped or isinstance(inner, BinaryLayer),
        )


def _call_after(module: LightningModule, name: str, then: Callable[[], None]) -> None:
    """Call a function once, after a hook of the module's own, for which Lightning has no place."""
    hook = getattr(module, name)
    own = vars(module).get(name)

    # With the hook's own attributes, from which Lightning tells whether the user wrote one.
    @functools.wraps(hook)
    def call(*args: Any, **kwargs: Any) -> Any:
        if own is None:
            delattr(module, name)
        else:
            setattr(module, name, own)
        result = hook(*args, **kwargs)
        then()
        return result

    setattr(module, name, call)


def _refuse_scaling_twice(trainer: Trainer, pl_module: LightningModule) -> None:
    layers = binary_layers(pl_module)
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            weights = [
                id(layer.weight)
                for name, layer in layers.items()
                if group.get("name") and name.endswith(group["name"])
            ]
            if any(id(parameter) in weights for parameter in group["params"]):
                raise UserError(
                    f"the learning rate of {group['name']} is scaled by the optimizer's groups "
                    "already; leave out scale_learning_rates=True of BinaryConnect"
                )
