"""What is done with the latent weights of a model: found, clipped, counted, chosen between."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from bclightning.nn.layers import BinaryLayer, LayerWeights


def binary_layers(model: nn.Module) -> dict[str, BinaryLayer]:
    """The binary layers of a model by name, each once, in the model's order.

    Example:
        >>> from bclightning.nn import BinaryLinear
        >>> list(binary_layers(nn.Sequential(BinaryLinear(2, 2), nn.ReLU())))
        ['0']
    """
    return {
        name: module for name, module in model.named_modules() if isinstance(module, BinaryLayer)
    }


@torch.no_grad()
def clip_latent_weights_(model: nn.Module) -> None:
    """Clip all latent weights to [-1, 1], in place (section 2.4).

    Outside that range a latent weight no longer changes what the network computes and would drift
    unseen; biases and normalizations stay as they are.

    Example:
        >>> from bclightning.nn import BinaryLinear
        >>> layer = BinaryLinear(1, 1)
        >>> _ = nn.init.constant_(layer.weight, 1.5)
        >>> clip_latent_weights_(layer)
        >>> layer.weight.item()
        1.0
    """
    for layer in binary_layers(model).values():
        layer.weight.clamp_(-1.0, 1.0)


@contextlib.contextmanager
def evaluating_with(model: nn.Module, weights: LayerWeights) -> Iterator[None]:
    """Let every binary layer use `weights` in evaluation mode, and restore each one's own after.

    Example:
        >>> from bclightning.nn import BinaryLinear
        >>> layer = BinaryLinear(1, 1, bias=False).eval()
        >>> _ = nn.init.constant_(layer.weight, 0.25)
        >>> with evaluating_with(layer, "real"):
        ...     layer(torch.ones(1, 1)).item()
        0.25
    """
    layers = list(binary_layers(model).values())
    own = [layer.eval_weights for layer in layers]
    for layer in layers:
        layer.eval_weights = weights
    try:
        yield
    finally:
        for layer, eval_weights in zip(layers, own, strict=True):
            layer.eval_weights = eval_weights


@contextlib.contextmanager
def in_evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and each of its modules back into its own after.

    Example:
        >>> layer = nn.Linear(1, 1)
        >>> with in_evaluation_mode(layer):
        ...     layer.training
        False
        >>> layer.training
        True
    """
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def trains_and_evaluates_differently(model: nn.Module) -> bool:
    """Whether some binary layer evaluates with other weights than it was trained with.

    Batch-norm running averages then belong to a network that is not the evaluated one.
    """
    trained: dict[str, LayerWeights] = {"deterministic": "binary", "stochastic": "sampled"}
    return any(
        layer.eval_weights != trained[layer.binarization] for layer in binary_layers(model).values()
    )


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
