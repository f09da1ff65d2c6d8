"""Re-estimation of batch-norm statistics for the weights that the network is evaluated with."""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bclightning.nn.latent import in_evaluation_mode

BatchNorm = (
    nn.BatchNorm1d
    | nn.BatchNorm2d
    | nn.BatchNorm3d
    | nn.SyncBatchNorm
    | nn.LazyBatchNorm1d
    | nn.LazyBatchNorm2d
    | nn.LazyBatchNorm3d
)
"""Torch's batch normalizations, with the lazy ones, whose missing statistics torch reports."""


def tracking_batch_norms(model: nn.Module) -> list[BatchNorm]:
    """The batch normalizations that keep running statistics, in the order of the model's modules.

    Example:
        >>> tracking_batch_norms(nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False)))
        []
    """
    return [m for m in model.modules() if isinstance(m, BatchNorm) and m.track_running_stats]


def images_in(batch: Any) -> int | None:
    """The number of images of a batch: the length of the first tensor in it, `None` without one.

    Example:
        >>> images_in({"names": ["a", "b"], "views": [torch.zeros(2, 3), torch.zeros(2, 3)]})
        2
    """
    if isinstance(batch, Tensor):
        return len(batch) if batch.dim() else None
    parts: Iterable[Any] = batch if isinstance(batch, list | tuple) else ()
    if isinstance(batch, Mapping):
        parts = batch.values()
    return next((count for part in parts if (count := images_in(part)) is not None), None)


def _drop_single_image_batches(batches: Iterable[Any]) -> Iterator[Any]:
    """Leave out batches of one image, as at the end of a data set, unless there are no others."""
    # One value has no variance: torch refuses such a batch where pixels do not add more values.
    single = []
    others = False
    for batch in batches:
        if images_in(batch) != 1:
            others = True
            yield batch
        elif not others:
            single.append(batch)
    if not others:
        yield from single


def reestimate_batch_norm_(
    model: nn.Module, batches: Iterable[Any], step: Callable[[Any], object] | None = None
) -> None:
    """Replace batch-norm running statistics by their averages over `batches`, in place.

    The running averages of training belong to the weights of training. A network that is evaluated
    with other weights (the real ones after stochastic training, or the signs of the same weights)
    needs other statistics: each batch normalization uses its batch's statistics, as in training,
    while everything else runs in evaluation mode, and the averages over all batches are kept. Each
    batch is weighted by its number of images: the mean is that of all images, and the variance the
    average of the variances within the batches. Batches of one image are left out where there are
    larger ones. A normalization that no batch passes through keeps its statistics, and a warning
    names it. On an error, the statistics stay as they were.

    Args:
        model: The network, on the device of the batches; its modes are restored.
        batches: Inputs of shape (batch, ...), or whatever `step` takes, only of training images, in
            large batches.
        step: Function that runs the network on a batch, where that takes more than the model's
            ``forward``; the model itself if `None`.

    Raises:
        ValueError: There are no batches.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(1))
        >>> batches = [torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([[7.0], [9.0]])]
        >>> reestimate_batch_norm_(model, batches)
        >>> model[0].running_mean
        tensor([5.])
        >>> pairs = [(images + 1, "labels") for images in batches]
        >>> reestimate_batch_norm_(model, pairs, lambda pair: model(pair[0]))
        >>> model[0].running_mean
        tensor([6.])
    """
    unreached = estimate_statistics_(model, batches, model if step is None else step)
    if unreached:
        warnings.warn(
            f"no batch passed through {', '.join(unreached)}, so the batch-norm statistics there "
            "stay as they are; give reestimate_batch_norm_ a step that runs the whole network",
            stacklevel=2,
        )


@torch.no_grad()
def estimate_statistics_(
    model: nn.Module, batches: Iterable[Any], step: Callable[[Any], object]
) -> list[str]:
    """Re-estimate as `reestimate_batch_norm_`, and say which normalizations no batch passed.

    Args:
        model: The network; see `reestimate_batch_norm_`.
        batches: What `step` takes.
        step: Function that runs the network on a batch.

    Returns:
        Names of the batch normalizations that kept their statistics.

    Raises:
        ValueError: There are no batches.
    """
    norms = tracking_batch_norms(model)
    momenta = [norm.momentum for norm in norms]
    values = dict.fromkeys(norms, 0)

    def weigh(norm: BatchNorm, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        (inputs,) = (*args, *kwargs.values())
        # Each pixel is one of the values that the statistics are computed from.
        new = inputs.numel() // inputs.shape[1]
        values[norm] += new
        norm.momentum = new / values[norm]

    before = _statistics(norms)
    seen = False
    hooks = [norm.register_forward_pre_hook(weigh, with_kwargs=True) for norm in norms]
    # A compiled network would be compiled again for each momentum, and would not see the hooks.
    with in_evaluation_mode(model), torch.compiler.set_stance("force_eager"):
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.training = True
            for batch in _drop_single_image_batches(batches):
                step(batch)
                seen = True
            if not seen:
                raise ValueError("no batches to estimate batch-norm statistics from")
        except BaseException:
            _restore(before)
            raise
        finally:
            for norm, momentum, hook in zip(norms, momenta, hooks, strict=True):
                norm.momentum = momentum
                hook.remove()
    unreached = {norm for norm in norms if not values[norm]}
    if not unreached:
        return []
    # What was reset and not estimated would be a mean of 0 and a variance of 1.
    kept = {id(buffer) for norm in unreached for buffer in norm.buffers(recurse=False)}
    _restore([(buffer, value) for buffer, value in before if id(buffer) in kept])
    names = {module: name or type(module).__name__ for name, module in model.named_modules()}
    return [names[norm] for norm in norms if norm in unreached]


@contextlib.contextmanager
def preserving_batch_norm(model: nn.Module) -> Iterator[None]:
    """Restore the batch-norm statistics of a model, to the bit, when the block ends.

    Example:
        >>> model = nn.BatchNorm1d(1)
        >>> with preserving_batch_norm(model):
        ...     reestimate_batch_norm_(model, [torch.tensor([[1.0], [3.0]])])
        >>> model.running_mean
        tensor([0.])
    """
    before = _statistics(tracking_batch_norms(model))
    try:
        yield
    finally:
        _restore(before)


def _statistics(norms: list[BatchNorm]) -> list[tuple[Tensor, Tensor]]:
    """The statistics of normalizations, each with a copy of its present value."""
    return [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]


def _restore(statistics: list[tuple[Tensor, Tensor]]) -> None:
    for buffer, value in statistics:
        buffer.copy_(value)
