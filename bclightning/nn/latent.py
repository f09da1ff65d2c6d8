"""The latent weights of a model: find them, clip them, choose which weights evaluation uses."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from bclightning.nn.layers import BinaryLayer
from bclightning.vocabulary import LayerWeights


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

    Outside that range, a latent weight would drift without any effect on what the network computes.
    Biases and normalizations are left as they are.

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
    """Let all binary layers evaluate with `weights`; restore each layer's own choice afterwards.

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
    """Set a model to evaluation mode; restore the mode of each of its modules afterwards.

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


def evaluates_other_weights(model: nn.Module) -> bool:
    """Whether any binary layer evaluates with other weights than it is trained with.

    The running averages of batch normalization then belong to the training weights, and do not fit
    the evaluated network.

    Example:
        >>> from bclightning.nn import BinaryLinear
        >>> evaluates_other_weights(BinaryLinear(1, 1, binarization="stochastic"))
        True
    """
    trained: dict[str, LayerWeights] = {"deterministic": "binary", "stochastic": "sampled"}
    return any(
        layer.eval_weights != trained[layer.binarization] for layer in binary_layers(model).values()
    )
