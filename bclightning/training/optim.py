"""Optimizers and learning rates of the paper (section 2.5): scaled for binary weights, decaying."""

from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ExponentialLR

from bclightning.nn import binary_layers
from bclightning.training.binary_adam import BinaryAdam, fused_group

OptimizerName = Literal["adam", "sgd", "nesterov"]


def parameter_groups(
    model: nn.Module, learning_rate: float, *, scaled: bool = True, squared: bool = False
) -> list[dict[str, Any]]:
    """Parameter groups in which each binary weight has its own learning rate (section 2.5).

    The paper multiplies the *update* of a binary weight by ``1 / sqrt(1.5 / (fan_in + fan_out))``
    (for stochastic gradient descent by its square). A learning rate scaled by the same factor gives
    the same update without another pass over the weights.

    Args:
        model: The network; parameters that need no gradient are left out.
        learning_rate: Learning rate of all other parameters.
        scaled: Whether to scale at all (the paper's table 1 compares both).
        squared: Whether to scale by the square, for optimizers that do not normalize updates.

    Returns:
        A group ``unscaled`` for all other parameters, then a group per binary layer, with its name.

    Example:
        >>> from bclightning.nn import BinaryLinear
        >>> [group["lr"] for group in parameter_groups(BinaryLinear(20, 4), 0.5)]
        [0.5, 2.0]
    """
    layers = binary_layers(model) if scaled else {}
    groups: list[dict[str, Any]] = []
    taken: set[int] = set()
    for name, layer in layers.items():
        # A weight that two layers share belongs to the first one's group.
        if layer.weight.requires_grad and id(layer.weight) not in taken:
            scale = layer.learning_rate_scale()
            rate = learning_rate * (scale**2 if squared else scale)
            groups.append({"params": [layer.weight], "lr": rate, "name": name})
            taken.add(id(layer.weight))
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    if rest:
        groups.insert(0, {"params": rest, "lr": learning_rate, "name": "unscaled"})
    return groups


def make_optimizer(
    model: nn.Module,
    name: OptimizerName = "adam",
    learning_rate: float = 1e-3,
    *,
    scaled: bool = True,
    momentum: float = 0.9,
) -> Optimizer:
    """One of the paper's optimizers (table 1) over `parameter_groups`.

    Args:
        model: The network.
        name: ``adam``, ``sgd`` (without momentum) or ``nesterov``.
        learning_rate: Learning rate before scaling.
        scaled: Whether binary weights have scaled learning rates.
        momentum: Momentum of ``nesterov``.

    Raises:
        ValueError: The name is not one of the three.

    Example:
        >>> type(make_optimizer(nn.Linear(2, 2), "nesterov", 0.1)).__name__
        'SGD'
    """
    groups = parameter_groups(model, learning_rate, scaled=scaled, squared=name != "adam")
    match name:
        case "adam" if binary_layers(model):
            return BinaryAdam(groups, binary_layers(model).values(), lr=learning_rate)
        case "adam":
            return torch.optim.Adam([fused_group(group) for group in groups], lr=learning_rate)
        case "sgd":
            return torch.optim.SGD(groups, lr=learning_rate)
        case "nesterov":
            return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=True)
    raise ValueError(f"optimizer must be adam, sgd or nesterov, not {name!r}")


def exponential_decay(
    optimizer: Optimizer, first: float, last: float, epochs: int
) -> ExponentialLR:
    """Decay every learning rate each epoch by ``(last / first) ** (1 / epochs)`` (section 3).

    Example:
        >>> optimizer = make_optimizer(nn.Linear(2, 2), learning_rate=1.0)
        >>> exponential_decay(optimizer, 1.0, 0.25, epochs=2).gamma
        0.5
    """
    return ExponentialLR(optimizer, gamma=(last / first) ** (1 / epochs))
