"""The paper's test-time methods (section 2.6), with batch norm as trained or re-estimated."""

import contextlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bclightning.nn import (
    binary_layers,
    evaluating_with,
    preserving_batch_norm,
    reestimate_batch_norm_,
    trains_and_evaluates_differently,
)

EvalWeights = Literal["binary", "real"]
"""Which weights multiply at test time: method 1 or method 2 of section 2.6."""

BatchNorm = Literal["as trained", "re-estimated"]
"""Where batch-norm statistics come from: training's running averages, or a pass of their own."""

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class MethodError:
    """The error of a network under one test-time method.

    Attributes:
        weights: The weights used.
        batch_norm: The batch-norm statistics used.
        error: Share of wrongly classified images, in percent.
    """

    weights: EvalWeights
    batch_norm: BatchNorm
    error: float


def chosen_method(network: nn.Module) -> tuple[EvalWeights, BatchNorm]:
    """The method that stands for a network: the one that validation used to choose its epoch.

    Binary weights after deterministic training, real ones otherwise (section 2.6); re-estimated
    statistics where the weights are not those of training.

    Example:
        >>> from bclightning.nn import BinaryLinear
        >>> chosen_method(BinaryLinear(2, 2, binarization="stochastic"))
        ('real', 're-estimated')
    """
    layers = binary_layers(network).values()
    binary = any(layer.eval_weights == "binary" for layer in layers)
    differs = trains_and_evaluates_differently(network)
    return "binary" if binary else "real", "re-estimated" if differs else "as trained"


@torch.inference_mode()
def error_rate(network: nn.Module, batches: Batches) -> float:
    """The share of wrongly classified images, in percent, in evaluation mode.

    Args:
        network: Maps images to scores of shape (batch, classes); its mode is restored.
        batches: Pairs of images (batch, ...) and labels (batch,).

    Raises:
        ValueError: There are no images.

    Example:
        >>> batch = (torch.eye(2), torch.tensor([0, 0]))
        >>> error_rate(nn.Identity(), [batch])
        50.0
    """
    device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    training = network.training
    network.eval()
    wrong = images_seen = 0
    try:
        for images, labels in batches:
            predicted = network(images.to(device)).argmax(1)
            wrong += int((predicted != labels.to(device)).sum())
            images_seen += len(labels)
    finally:
        network.train(training)
    if not images_seen:
        raise ValueError("no images to classify")
    return 100.0 * wrong / images_seen


def errors_by_method(
    network: nn.Module,
    batches: Batches,
    statistics: Batches,
    precision: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
) -> list[MethodError]:
    """The error under each kind of weights, as trained and with batch norm re-estimated.

    Args:
        network: The trained network, which is as it was in the end.
        batches: What to classify.
        statistics: Training images to re-estimate batch-norm statistics from, in large batches.
        precision: Makes the context of each forward pass, for automatic mixed precision.

    Returns:
        Four results for a network with binary weights, two for one without.

    Example:
        >>> from bclightning.nn import BinaryLinear
        >>> network = nn.Sequential(BinaryLinear(4, 2), nn.BatchNorm1d(2))
        >>> batch = (torch.randn(8, 4), torch.zeros(8, dtype=torch.int64))
        >>> [(e.weights, e.batch_norm) for e in errors_by_method(network, [batch], [batch])][:2]
        [('binary', 'as trained'), ('binary', 're-estimated')]
    """
    device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    kinds: list[EvalWeights] = ["binary", "real"] if binary_layers(network) else ["real"]
    results = []
    for weights in kinds:
        with evaluating_with(network, weights), precision():
            results.append(MethodError(weights, "as trained", error_rate(network, batches)))
            with preserving_batch_norm(network):
                reestimate_batch_norm_(network, (images.to(device) for images, _ in statistics))
                results.append(MethodError(weights, "re-estimated", error_rate(network, batches)))
    return results
