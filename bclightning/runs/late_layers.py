"""Layers that a module makes after its constructor, in Lightning's hooks that begin a stage.

A run needs them before: to say what it trains, and to load weights into them.
"""

import functools
from collections.abc import Callable

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

from bclightning.errors import UserError
from bclightning.training import BinaryConnect


def makes_layers_late(model: LightningModule) -> bool:
    """Whether a module has a hook in which it may make layers.

    Example:
        >>> from bclightning.models import MLP
        >>> from bclightning.training import Classifier
        >>> makes_layers_late(Classifier(MLP(64, [32])))
        False
    """
    return is_overridden("setup", model) or is_overridden("configure_model", model)


def make_late_layers(model: LightningModule, data: LightningDataModule, trainer: Trainer) -> None:
    """Call the hooks as Lightning does when training begins, and make the new layers binary.

    A module without such hooks is left alone.

    Args:
        model: The module, to which `trainer` is attached as its hooks may ask for it.
        data: Its data, which are set up before, since a layer's size may depend on them.
        trainer: The trainer, whose `BinaryConnect` callbacks say what becomes binary.

    Raises:
        UserError: There is nothing to convert, a layer cannot be converted, or the hooks make it
            again at the next stage, which would begin without what was trained.
    """
    if not makes_layers_late(model):
        return
    model.trainer = trainer
    data.prepare_data()
    data.setup("fit")
    _call_hooks(model)
    require_weights_kept = weights_kept_by(model)
    _call_hooks(model)
    require_weights_kept()
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        if isinstance(callback, BinaryConnect):
            try:
                callback.convert(model)
            except (TypeError, ValueError) as error:
                raise UserError(str(error)) from error


def _call_hooks(model: LightningModule) -> None:
    model.setup("fit")
    model.configure_model()


def weights_kept_by(model: LightningModule) -> Callable[[], None]:
    """A check that a module's hooks have not replaced its weights.

    Returns:
        The check, for after the hooks; it raises a `UserError` that names the first such weight.

    Example:
        >>> import torch
        >>> model = LightningModule()
        >>> model.head = torch.nn.Linear(2, 2)
        >>> check = weights_kept_by(model)
        >>> model.head = torch.nn.Linear(2, 2)
        >>> try:
        ...     check()
        ... except UserError as error:
        ...     print(error)
        LightningModule makes head.weight again in setup or configure_model, so that a test \
would not have the trained weights; let it make layers only where there are none yet
    """
    return functools.partial(_require_same, model, dict(model.named_parameters()))


def _require_same(model: LightningModule, before: dict[str, object]) -> None:
    for name, parameter in model.named_parameters():
        if parameter is not before.get(name):
            raise UserError(
                f"{type(model).__name__} makes {name} again in setup or configure_model, so that a "
                "test would not have the trained weights; let it make layers only where there are "
                "none yet"
            )
