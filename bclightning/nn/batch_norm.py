"""Re-estimation of batch-norm statistics with the weights that will be used."""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from bclightning.nn.latent import in_evaluation_mode

_BatchNorm = nn.modules.batchnorm._BatchNorm


def tracking_batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch normalizations that keep running statistics, in the order of the model's modules.

    Example:
        >>> tracking_batch_norms(nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False)))
        []
    """
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


def _of_several_images(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Leave out what is left over at the end of a data set, unless there is nothing else."""
    # Of one value there is no variance, and torch refuses such a batch where no pixels add more.
    single = []
    others = False
    for images in batches:
        if len(images) > 1:
            others = True
            yield images
        elif not others:
            single.append(images)
    if not others:
        yield from single


@torch.no_grad()
def reestimate_batch_norm_(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace batch-norm running statistics by their averages over `batches`, in place.

    The running averages of training belong to the weights of training. A network that is evaluated
    with others (the real ones after stochastic training, or the signs of the same weights) needs
    statistics of its own: each batch normalization uses its batch's statistics, as in training,
    while everything else runs in evaluation mode, and the averages over all batches are kept. A
    batch counts as much as it has images: the mean is that of all images, and the variance the
    average of the variances within the batches. A batch of one image is left out where there are
    larger ones. If a batch fails, or there is none, the statistics are what they were.

    Args:
        model: The network, on the device of the batches; its modes are restored.
        batches: Inputs of shape (batch, ...), of training images and no others, in large batches.

    Raises:
        ValueError: There are no batches.

    Example:
        >>> model = nn.Sequential(nn.BatchNorm1d(1))
        >>> batches = [torch.tensor([[1.0], [3.0], [5.0]]), torch.tensor([[7.0], [9.0]])]
        >>> reestimate_batch_norm_(model, batches)
        >>> model[0].running_mean
        tensor([5.])
    """
    norms = tracking_batch_norms(model)
    momenta = [norm.momentum for norm in norms]
    values = dict.fromkeys(norms, 0)

    def weigh(norm: _BatchNorm, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        (given,) = (*args, *kwargs.values())
        # Pixels count too: each is a value that the statistics are taken over.
        here = given.numel() // given.shape[1]
        values[norm] += here
        norm.momentum = here / values[norm]

    before = _copies(model)
    seen = False
    hooks = [norm.register_forward_pre_hook(weigh, with_kwargs=True) for norm in norms]
    # A compiled network would be compiled anew for each momentum, and would not see the hooks.
    with in_evaluation_mode(model), torch.compiler.set_stance("force_eager"):
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.training = True
            for images in _of_several_images(batches):
                model(images)
                seen = True
            if not seen:
                raise ValueError("no batches to estimate batch-norm statistics from")
        except BaseException:
            _put_back(before)
            raise
        finally:
            for norm, momentum, hook in zip(norms, momenta, hooks, strict=True):
                norm.momentum = momentum
                hook.remove()


@contextlib.contextmanager
def preserving_batch_norm(model: nn.Module) -> Iterator[None]:
    """Put the batch-norm statistics of a model back, to the bit, when the block ends.

    Example:
        >>> model = nn.BatchNorm1d(1)
        >>> with preserving_batch_norm(model):
        ...     reestimate_batch_norm_(model, [torch.tensor([[1.0], [3.0]])])
        >>> model.running_mean
        tensor([0.])
    """
    before = _copies(model)
    try:
        yield
    finally:
        _put_back(before)


def _copies(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """The statistics of a model, each with a copy of what it is now."""
    return [
        (buffer, buffer.clone())
        for norm in tracking_batch_norms(model)
        for buffer in norm.buffers(recurse=False)
    ]


def _put_back(copies: list[tuple[Tensor, Tensor]]) -> None:
    for buffer, value in copies:
        buffer.copy_(value)
