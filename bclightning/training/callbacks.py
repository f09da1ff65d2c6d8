"""Callbacks that make and clip binary weights, for any LightningModule."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from bclightning.errors import UserError
from bclightning.nn import (
    Binarization,
    BinaryLayer,
    binary_layers,
    clip_latent_weights_,
    convert_to_binary,
)
from bclightning.nn.convert import skipped_modules
from bclightning.training.batch_norm import ReestimateBatchNorm
from bclightning.training.binary_adam import BinaryAdam


class ClipWeights(Callback):
    """Clip the latent weights to [-1, 1] after each real optimizer step (section 2.4).

    It hangs on the optimizers themselves, since Lightning has no hook after a step: so it is right
    under gradient accumulation, with several optimizers, and where automatic mixed precision skips
    a step. A model without binary layers is left alone.

    Raises:
        UserError: At the start of training: latent weights are held in 16 bits, where small updates
            round to nothing.

    Example:
        >>> trainer = Trainer(callbacks=[ClipWeights()], accelerator="cpu", logger=False)
    """

    def __init__(self) -> None:
        self._hooks: list[RemovableHandle] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Clip once, for weights that come from elsewhere, and hang the clip on the optimizers."""
        layers = binary_layers(pl_module)
        for name, layer in layers.items():
            if layer.weight.dtype in (torch.float16, torch.bfloat16):
                raise UserError(
                    f"the latent weights of {name} are held in {layer.weight.dtype}, where small "
                    "updates round to nothing; train with --trainer.precision bf16-mixed or 32-true"
                )
        if not layers:
            return
        clip_latent_weights_(pl_module)

        def clip(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            clip_latent_weights_(pl_module)

        self._hooks = [
            optimizer.register_step_post_hook(clip)
            for optimizer in trainer.optimizers
            if _holds_any(optimizer, {id(layer.weight) for layer in layers.values()})
            and not isinstance(optimizer, BinaryAdam)
        ]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the clip off the optimizers."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


class BinaryConnect(ClipWeights):
    """Give any LightningModule binary weights: convert before training, clip after each step.

    The module needs to know nothing of this package. Its `Linear` and `Conv2d` layers become binary
    in `setup`, before the optimizer is made and a checkpoint is loaded, for every stage. Layers
    that are binary already stay as they are, with their own binarization.

    Validation and test have batch-norm statistics of the weights that they use, which after
    stochastic training are not those of training; without, the error can be several times as high.
    This is done as by `ReestimateBatchNorm`, unless the trainer has such a callback already.

    Args:
        binarization: ``deterministic`` or ``stochastic``.
        skip: Modules that stay real: names of modules or shell patterns, or a function of (name,
            module); see `bclightning.nn.convert_to_binary`.
        reestimate_batch_norm: Whether validation and test have statistics of their own.

    Raises:
        ValueError: In `setup`: nothing to convert, or a pattern that matches nothing.
        TypeError: In `setup`: a layer that cannot be converted.

    Example:
        >>> binary = BinaryConnect("stochastic", skip=["head"])
        >>> trainer = Trainer(callbacks=[binary], accelerator="cpu", logger=False)
    """

    def __init__(
        self,
        binarization: Binarization = "deterministic",
        skip: list[str] | Callable[[str, nn.Module], bool] | None = None,
        reestimate_batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.binarization = binarization
        self.skip = skip if skip is not None else []
        self.reestimate_batch_norm = reestimate_batch_norm

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Convert the module's layers before its optimizer is made."""
        self.convert(pl_module)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        if self.reestimate_batch_norm and not any(
            isinstance(callback, ReestimateBatchNorm) for callback in callbacks
        ):
            # Another list: Lightning is going through this one.
            trainer.callbacks = [ReestimateBatchNorm(), *callbacks]  # type: ignore[attr-defined]

    def convert(self, module: nn.Module) -> None:
        """Convert what is neither binary already nor skipped: testing finds nothing left to do."""
        skipped = skipped_modules(module, self.skip)
        left = any(
            type(inner) in (nn.Linear, nn.Conv2d) and id(inner) not in skipped
            for inner in module.modules()
        )
        if left or not binary_layers(module):
            convert_to_binary(
                module,
                self.binarization,
                lambda _, inner: id(inner) in skipped or isinstance(inner, BinaryLayer),
            )


def _holds_any(optimizer: Optimizer, parameters: set[int]) -> bool:
    return any(
        id(parameter) in parameters
        for group in optimizer.param_groups
        for parameter in group["params"]
    )
