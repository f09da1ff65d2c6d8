"""What is done with the latent weights of a model: found, clipped, chosen between."""

import contextlib
from collections.abc import Iterator

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
