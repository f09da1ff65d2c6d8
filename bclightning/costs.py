"""What a network costs: parameters, bits and bytes, operations and energy for an image.

Energy is an estimate from published figures per operation: those of M. Horowitz, "Computing's
energy problem (and what we can do about it)", ISSCC 2014, for a 45 nm process at 0.9 V: 3.7 pJ for
a multiplication and 0.9 pJ for an addition of 32-bit floats, and 1.3 to 2.6 nJ for 64 bits from
DRAM, of which the lower one is taken here. Newer processes need less for all of them; their
ratios, which are what is compared, change slowly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bclightning.nn import BinaryLayer, binary_layers, evaluating_with, in_evaluation_mode

_PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMALIZATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_COUNTED = (*_PRODUCTS, *_NORMALIZATIONS)

MULTIPLICATION = 3.7e-12
"""Joules for a multiplication of 32-bit floats."""

ADDITION = 0.9e-12
"""Joules for an addition of 32-bit floats."""

DRAM_BIT = 1.3e-9 / 64
"""Joules for a bit that is read from DRAM."""


@dataclass(frozen=True)
class Operations:
    """Arithmetic for one image, in full-precision operations.

    Attributes:
        multiplications: Number of multiplications.
        additions: Number of additions; a subtraction is one.
    """

    multiplications: int = 0
    additions: int = 0

    def __add__(self, other: "Operations") -> "Operations":
        """The sum of both."""
        return Operations(
            self.multiplications + other.multiplications, self.additions + other.additions
        )


@dataclass(frozen=True)
class LayerCost:
    """A layer that has parameters, and what it costs.

    Attributes:
        name: Name of the module.
        kind: Class of the module.
        shape: Shape of its weight.
        binary: Whether the weight is binary.
        parameters: Number of parameters, each counted in the first layer that uses it.
        bits: Bits that they take at test time: one for a binary weight, 32 for any other.
        test: Arithmetic at test time, with binary weights; ``None`` for a kind that is not counted.
        train: Arithmetic of a training step, per image; ``None`` for a kind that is not counted.
        float_test: The same as `test` for the twin with real weights.
        float_train: The same as `train` for the twin with real weights.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    binary: bool
    parameters: int
    bits: int
    test: Operations | None
    train: Operations | None
    float_test: Operations | None
    float_train: Operations | None


def layer_costs(network: nn.Module, image_shape: Sequence[int]) -> list[LayerCost]:
    """Count parameters and operations of each layer by sending one image of zeros through.

    A product is counted once for the forward pass, and in training once more for the gradient of
    its inputs, where one is asked for, and for that of its weights. Binary weights take the
    multiplications from the first two and not from the third (section 2.1). Padding counts as
    inputs. Batch normalization is one multiplication and one addition per value at test time; in
    training it is 6 and 8: mean, variance, normalization and scaling forward, and three sums
    backward. Activations, pooling, the loss and the optimizer, whose work does not grow with the
    images, are not counted.

    Args:
        network: Any network; its mode is restored.
        image_shape: Channels, height and width of an image.

    Returns:
        The layers that have parameters or that are counted, in the network's order.

    Raises:
        RuntimeError: The network does not take such images.

    Example:
        >>> from bclightning.nn import BinaryLinear
        >>> (cost,) = layer_costs(BinaryLinear(8, 4, bias=False), (8,))
        >>> cost.bits, cost.test, cost.train
        (32, Operations(multiplications=0, additions=32), Operations(multiplications=32, \
additions=64))
    """
    calls: dict[nn.Module, list[tuple[Tensor, Tensor]]] = {}

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        calls.setdefault(module, []).append((inputs[0], output))

    layers = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _COUNTED) or any(True for _ in module.parameters(recurse=False))
    }
    hooks = [m.register_forward_hook(note) for m in layers.values() if isinstance(m, _COUNTED)]
    like = next(network.parameters(), torch.zeros(0))
    try:
        # With gradients: a layer whose inputs want one has to compute it in training.
        with (
            torch.enable_grad(),
            evaluating_with(network, "real"),
            in_evaluation_mode(network),
        ):
            network(torch.zeros(1, *image_shape, device=like.device, dtype=like.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    seen: set[int] = set()
    return [_cost(name, layer, calls.get(layer, []), seen) for name, layer in layers.items()]


def _cost(
    name: str, layer: nn.Module, calls: list[tuple[Tensor, Tensor]], seen: set[int]
) -> LayerCost:
    own = {id(p): p for p in layer.parameters(recurse=False) if id(p) not in seen}
    seen.update(own)
    weight = getattr(layer, "weight", None)
    shape = tuple(weight.shape) if isinstance(weight, Tensor) else ()
    binary = isinstance(layer, BinaryLayer)
    parameters = sum(parameter.numel() for parameter in own.values())
    single = math.prod(shape) if binary and id(weight) in own else 0
    test, train = _operations(layer, calls, binary)
    float_test, float_train = _operations(layer, calls, False)
    return LayerCost(
        name,
        type(layer).__name__,
        shape,
        binary,
        parameters,
        single + 32 * (parameters - single),
        test,
        train,
        float_test,
        float_train,
    )


def _operations(
    layer: nn.Module, calls: list[tuple[Tensor, Tensor]], binary: bool
) -> tuple[Operations | None, Operations | None]:
    test, train = Operations(), Operations()
    for inputs, output in calls:
        values = output.numel()
        if isinstance(layer, _NORMALIZATIONS):
            test += Operations(values, values)
            train += Operations(6 * values, 8 * values)
        elif isinstance(layer, _PRODUCTS):
            weight = layer.weight
            products = values * math.prod(weight.shape[1:])
            by_weights = 1 + inputs.requires_grad
            by_gradients = int(weight.requires_grad)
            multiplied = by_gradients if binary else by_weights + by_gradients
            test += Operations(0 if binary else products, products)
            train += Operations(multiplied * products, (by_weights + by_gradients) * products)
        else:
            return None, None
    return (test, train) if isinstance(layer, _COUNTED) else (None, None)


@dataclass(frozen=True)
class Energy:
    """The energy for one image, in joules.

    Attributes:
        arithmetic: Multiplications and additions.
        traffic: Reading all weights once, which a single image makes necessary and a batch shares.
    """

    arithmetic: float
    traffic: float

    @property
    def total(self) -> float:
        """Arithmetic and traffic together."""
        return self.arithmetic + self.traffic


def energy(operations: Operations, bits: int) -> Energy:
    """The energy of operations on 32-bit floats, and of reading weights from DRAM.

    Args:
        operations: Operations for one image.
        bits: Number of bits that all weights take.

    Example:
        >>> energy(Operations(multiplications=1_000_000, additions=0), 64).arithmetic
        3.7e-06
        >>> energy(Operations(), 64).traffic
        1.3e-09
    """
    arithmetic = operations.multiplications * MULTIPLICATION + operations.additions * ADDITION
    return Energy(arithmetic, bits * DRAM_BIT)


@dataclass(frozen=True)
class ModelSize:
    """How many weights of a model are binary and real, and what they take to store.

    Attributes:
        binary_weights: Number of latent weights, one bit each when packed.
        real_weights: Number of all other parameters, 4 bytes each.
    """

    binary_weights: int
    real_weights: int

    @property
    def float_bytes(self) -> int:
        """Bytes with every parameter in 32 bits."""
        return 4 * (self.binary_weights + self.real_weights)

    @property
    def packed_bytes(self) -> int:
        """Bytes with the binary weights packed, 8 to a byte, and the rest in 32 bits."""
        return (self.binary_weights + 7) // 8 + 4 * self.real_weights


def model_size(model: nn.Module) -> ModelSize:
    """Count binary and real parameters; a parameter used in several places counts once.

    Example:
        >>> from bclightning.nn import BinaryLinear
        >>> model_size(nn.Sequential(BinaryLinear(8, 4), nn.BatchNorm1d(4)))
        ModelSize(binary_weights=32, real_weights=12)
    """
    latent = {id(layer.weight): layer.weight for layer in binary_layers(model).values()}
    total = sum(parameter.numel() for parameter in model.parameters())
    binary = sum(weight.numel() for weight in latent.values())
    return ModelSize(binary_weights=binary, real_weights=total - binary)
