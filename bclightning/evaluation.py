"""A trained network under each kind of evaluation weights and batch-norm statistics."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bclightning.functional import binarize_stochastic
from bclightning.nn import (
    binary_layers,
    evaluates_other_weights,
    evaluating_with,
    in_evaluation_mode,
    preserving_batch_norm,
)
from bclightning.nn.batch_norm import estimate_statistics_
from bclightning.seeds import derive_seed
from bclightning.training.isolation import same_random_state
from bclightning.vocabulary import AS_TRAINED, RE_ESTIMATED, BatchNormStatistics, EvalWeights

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class EvaluationResult:
    """A metric of a network with some evaluation weights and batch-norm statistics.

    Attributes:
        weights: Evaluation weights (section 2.6).
        batch_norm: Batch-norm statistics.
        value: Value of the metric; of a classifier, the share of wrongly classified images in
            percent.
        ensemble_size: Number of networks of an ensemble, else ``None``.
    """

    weights: EvalWeights
    batch_norm: BatchNormStatistics
    value: float
    ensemble_size: int | None = None

    def entry(self) -> dict[str, Any]:
        """The result as plain data, without what is ``None``.

        Example:
            >>> EvaluationResult("real", "as trained", 1.5).entry()
            {'weights': 'real', 'batch_norm': 'as trained', 'value': 1.5}
        """
        return {key: value for key, value in asdict(self).items() if value is not None}


def default_evaluation(network: nn.Module) -> tuple[EvalWeights, BatchNormStatistics]:
    """The evaluation that stands for a network: the one that validation used to choose its epoch.

    Binary weights after deterministic training, real ones otherwise (section 2.6); re-estimated
    statistics where the weights are not those of training.

    Example:
        >>> from bclightning.nn import BinaryLinear
        >>> default_evaluation(BinaryLinear(2, 2, binarization="stochastic"))
        ('real', 're-estimated')
    """
    layers = binary_layers(network).values()
    binary = any(layer.eval_weights == "binary" for layer in layers)
    differs = evaluates_other_weights(network)
    return "binary" if binary else "real", RE_ESTIMATED if differs else AS_TRAINED


@contextlib.contextmanager
def sampled(network: nn.Module, seed: int) -> Iterator[None]:
    """Replace latent weights by one draw of the stochastic rule, as for an ensemble (section 2.6).

    One draw serves the whole block, batch-norm statistics and predictions alike.

    Args:
        network: A network with binary layers; its latent weights are restored in the end.
        seed: Seed of the draw.

    Example:
        >>> from bclightning.nn import BinaryLinear
        >>> layer = BinaryLinear(2, 2, bias=False).eval()
        >>> with sampled(layer, 0):
        ...     layer(torch.eye(2)).abs()
        tensor([[1., 1.],
                [1., 1.]])
    """
    weights = {id(layer.weight): layer.weight for layer in binary_layers(network).values()}
    latent = [(weight, weight.detach().clone()) for weight in weights.values()]
    with torch.no_grad(), evaluating_with(network, "real"):
        try:
            for place, (weight, value) in enumerate(latent):
                generator = torch.Generator(weight.device)
                generator.manual_seed(derive_seed(seed, place))
                weight.copy_(binarize_stochastic(value, generator))
            yield
        finally:
            for weight, value in latent:
                weight.copy_(value)


@torch.inference_mode()
def scores_of(network: nn.Module, batches: Batches) -> Tensor:
    """The scores of all images, of shape (images, classes), in evaluation mode, on the CPU.

    Args:
        network: Maps images to scores of shape (batch, classes); its mode is restored.
        batches: Pairs of images (batch, ...) and labels (batch,).

    Raises:
        ValueError: There are no images.
    """
    device = _device_of(network)
    with in_evaluation_mode(network):
        parts = [network(images.to(device)).float().cpu() for images, _ in batches]
    if not parts:
        raise ValueError("no images to classify")
    return torch.cat(parts)


def ensemble_errors(
    network: nn.Module,
    batches: Batches,
    statistics: Batches,
    size: int,
    seed: int = 0,
    precision: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
) -> list[EvaluationResult]:
    """The errors of networks drawn by the stochastic rule, their scores averaged (method 3).

    Args:
        network: The trained network, which is as it was in the end.
        batches: What to classify.
        statistics: Training images to re-estimate each member's batch-norm statistics from.
        size: Number of networks drawn.
        seed: Seed of the draws.
        precision: Function that makes the context of each forward pass.

    Returns:
        The error with batch-norm statistics as trained, and re-estimated for each member.

    Raises:
        ValueError: The size is not positive, or the network has no binary weights to draw.

    Example:
        >>> from bclightning.nn import BinaryLinear
        >>> network = nn.Sequential(BinaryLinear(4, 2), nn.BatchNorm1d(2))
        >>> batch = (torch.randn(8, 4), torch.zeros(8, dtype=torch.int64))
        >>> [error.batch_norm for error in ensemble_errors(network, [batch], [batch], size=2)]
        ['as trained', 're-estimated']
    """
    if size < 1:
        raise ValueError(f"an ensemble has at least one network, and {size} are asked for")
    if not binary_layers(network):
        raise ValueError("an ensemble is drawn from binary weights, and this network has none")
    labels = torch.cat([labels for _, labels in batches])
    sums: dict[BatchNormStatistics, Tensor] = {}
    for member in range(size):
        with sampled(network, derive_seed(seed, member)), precision():
            as_trained = scores_of(network, batches)
            with _reestimated(network, statistics):
                again = scores_of(network, batches)
        sums[AS_TRAINED] = sums.get(AS_TRAINED, 0) + as_trained
        sums[RE_ESTIMATED] = sums.get(RE_ESTIMATED, 0) + again
    return [
        EvaluationResult(
            "ensemble", which, _percent(int((total.argmax(1) != labels).sum()), len(labels)), size
        )
        for which, total in sums.items()
    ]


@contextlib.contextmanager
def _reestimated(network: nn.Module, statistics: Batches) -> Iterator[None]:
    """Batch-norm statistics of the weights that the network has now, for a block.

    What is evaluated is the network's ``forward``: a normalization that it does not pass plays no
    part, and keeps its statistics.
    """
    device = _device_of(network)
    with preserving_batch_norm(network):
        with same_random_state():
            images = (images.to(device) for images, _ in statistics)
            estimate_statistics_(network, images, network)
        yield


def _device_of(network: nn.Module) -> torch.device:
    return next((tensor.device for tensor in network.parameters()), torch.device("cpu"))


def _percent(wrong: int, images: int) -> float:
    # In this order 119 of 10,000 are 1.19, and not 1.1900000000000002.
    return 100.0 * wrong / images


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
    device = _device_of(network)
    wrong = images_seen = 0
    with in_evaluation_mode(network):
        for images, labels in batches:
            predicted = network(images.to(device)).argmax(1)
            wrong += int((predicted != labels.to(device)).sum())
            images_seen += len(labels)
    if not images_seen:
        raise ValueError("no images to classify")
    return _percent(wrong, images_seen)


def errors_by_weights(
    network: nn.Module,
    batches: Batches,
    statistics: Batches,
    kinds: Sequence[EvalWeights] = (),
    precision: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
) -> list[EvaluationResult]:
    """The error under each kind of weights, as trained and with batch norm re-estimated.

    Args:
        network: The trained network, which is as it was in the end.
        batches: What to classify.
        statistics: Training images to re-estimate batch-norm statistics from, in large batches.
        kinds: ``binary``, ``real`` or both; all that the network has when left out.
        precision: Function that makes the context of each forward pass, for mixed precision.

    Returns:
        Two results for each kind of weights.

    Example:
        >>> from bclightning.nn import BinaryLinear
        >>> network = nn.Sequential(BinaryLinear(4, 2), nn.BatchNorm1d(2))
        >>> batch = (torch.randn(8, 4), torch.zeros(8, dtype=torch.int64))
        >>> [(e.weights, e.batch_norm) for e in errors_by_weights(network, [batch], [batch])][:2]
        [('binary', 'as trained'), ('binary', 're-estimated')]
    """
    results = []
    for weights in kinds or (("binary", "real") if binary_layers(network) else ("real",)):
        if weights == "ensemble":
            raise ValueError("an ensemble's errors come from ensemble_errors")
        with evaluating_with(network, weights), precision():
            results.append(EvaluationResult(weights, AS_TRAINED, error_rate(network, batches)))
            with _reestimated(network, statistics):
                results.append(
                    EvaluationResult(weights, RE_ESTIMATED, error_rate(network, batches))
                )
    return results
