"""What an optimizer's step does to latent weights: scale their updates, then clip them.

Both hang on all of torch's optimizers, through the hooks that torch offers for that, and look at
each step whether the optimizer holds a latent weight. So it does not matter when an optimizer was
made, which groups of parameters it was given later, or in what kind of loop it steps.
"""

import functools
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import ASGD, LBFGS, SGD, Optimizer, Rprop
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from bclightning.errors import UserError

if TYPE_CHECKING:
    from bclightning.nn.layers import BinaryLayer

Groups = list[dict[str, Any]]
Layers = weakref.WeakValueDictionary[int, "BinaryLayer"]

# All binary layers that exist, and those with scaled updates. Layers and not weights, since the
# parameter of a layer may be replaced.
_LAYERS: Layers = weakref.WeakValueDictionary()
_SCALED: Layers = weakref.WeakValueDictionary()

# The groups as their owner sees them, of optimizers that are within a step with scaled updates.
_OWN_GROUPS: "weakref.WeakKeyDictionary[Optimizer, Groups]" = weakref.WeakKeyDictionary()
_SAVES_OWN_GROUPS: "weakref.WeakSet[Optimizer]" = weakref.WeakSet()


def watch(layer: "BinaryLayer") -> None:
    """Clip a layer's latent weight after each step of an optimizer that holds it (section 2.4).

    With ``layer.scale_updates`` its updates are scaled too (section 2.5). The layer is not kept
    alive.

    Args:
        layer: A binary layer.
    """
    _hang_on_all_optimizers()
    _LAYERS[id(layer)] = layer
    if layer.scale_updates:
        _SCALED[id(layer)] = layer
    else:
        _SCALED.pop(id(layer), None)


@functools.cache
def _hang_on_all_optimizers() -> None:
    register_optimizer_step_pre_hook(_before_step)
    register_optimizer_step_post_hook(_after_step)


def _before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    if _SCALED:
        _split_groups(optimizer)


def _after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    if _SCALED:
        _join_groups(optimizer)
    _clip(optimizer)


def _weights(layers: Layers) -> Iterator[tuple["BinaryLayer", Tensor]]:
    # The references are copied at once: a layer may come or go in another thread.
    for reference in layers.valuerefs():
        layer = reference()
        # A plain look-up: this is done at each step, and a small network's is short.
        weight = None if layer is None else layer._parameters.get("weight")
        if layer is not None and weight is not None:
            yield layer, weight


def _clip(optimizer: Optimizer) -> None:
    # An optimizer may clip in the same pass over memory as it updates.
    clipped = getattr(optimizer, "clipped_weights", ())
    weights = [weight for _, weight in _weights(_LAYERS) if id(weight) not in clipped]
    if weights:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        with torch.no_grad():
            for weight in weights:
                if id(weight) in held:
                    weight.clamp_(-1.0, 1.0)


def _split_groups(optimizer: Optimizer) -> None:
    """Give scaled weights groups of their own for the length of a step.

    To scale a rate costs nothing, where scaling the update would take a copy of each weight. For
    its owner the optimizer keeps the groups and rates that it was given: schedulers, learning-rate
    finders and checkpoints see those alone.
    """
    _join_groups(optimizer)  # the last step may have been interrupted
    squared = isinstance(optimizer, SGD | ASGD)
    factors = {
        id(weight): layer.learning_rate_scale() ** (2 if squared else 1)
        for layer, weight in _weights(_SCALED)
    }
    own: Groups = optimizer.param_groups
    if not any(id(p) in factors for group in own for p in group["params"]):
        return
    if isinstance(optimizer, LBFGS | Rprop):
        raise UserError(
            f"{type(optimizer).__name__} does not multiply updates by a learning rate, so those of "
            "binary weights cannot be scaled; use another optimizer or scale_learning_rates=False"
        )
    _save_own_groups(optimizer)
    _OWN_GROUPS[optimizer] = own
    optimizer.param_groups = [part for group in own for part in _parts(group, factors)]


def _parts(group: dict[str, Any], factors: dict[int, float]) -> Groups:
    by_factor: dict[float, list[Tensor]] = {}
    for parameter in group["params"]:
        by_factor.setdefault(factors.get(id(parameter), 1.0), []).append(parameter)
    return [
        {**group, "params": parameters, "lr": group["lr"] * factor}
        for factor, parameters in by_factor.items()
    ]


def _join_groups(optimizer: Optimizer) -> None:
    own = _OWN_GROUPS.pop(optimizer, None)
    if own is None:
        return
    parts = iter(optimizer.param_groups)
    for group in own:
        left = len(group["params"])
        while left:
            part = next(parts)
            left -= len(part["params"])
            # Some optimizers count in their groups.
            group.update({k: v for k, v in part.items() if k not in ("params", "lr")})
    own.extend(parts)  # groups that were added within the step
    optimizer.param_groups = own


def _save_own_groups(optimizer: Optimizer) -> None:
    """Save an optimizer with its own groups, also where an interruption left it within a step."""
    if optimizer not in _SAVES_OWN_GROUPS:
        _SAVES_OWN_GROUPS.add(optimizer)
        optimizer.register_state_dict_pre_hook(_join_groups)
