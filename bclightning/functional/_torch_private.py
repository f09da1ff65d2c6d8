"""The private names of torch that training depends on, each with the reason.

`pyproject.toml` has an upper bound for torch, and `tests/functional/test_torch_private.py` shows
what would break without each of them.
"""

import torch
from torch import Tensor, nn


def transforms_active() -> bool:
    """Whether a transform of `torch.func` is running.

    Those need an autograd function in another form, which takes four times as long to call, and
    torch has no public way to ask.

    Example:
        >>> torch.func.vmap(lambda x: x + transforms_active())(torch.zeros(1)), transforms_active()
        (tensor([1.]), False)
    """
    return torch._C._are_functorch_transforms_active()


def is_wrapped(tensor: Tensor) -> bool:
    """Whether a tensor stands for another one inside a transform of `torch.func`.

    Its class is that of a plain tensor, and under `torch.func.functionalize` it even has a data
    pointer, so no public property of it gives it away.

    Example:
        >>> torch.func.vmap(lambda x: x + is_wrapped(x))(torch.zeros(1)), is_wrapped(torch.zeros(1))
        (tensor([1.]), False)
    """
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def saved_tensor_hooks_active() -> bool:
    """Whether tensors saved for the backward pass go through hooks, as in checkpointed layers.

    `torch.autograd.graph` sets such hooks, and `torch.utils.checkpoint` is built on them; neither
    says whether any are set.

    Example:
        >>> with torch.autograd.graph.save_on_cpu():
        ...     saved_tensor_hooks_active()
        True
        >>> saved_tensor_hooks_active()
        False
    """
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


def version(tensor: Tensor) -> int:
    """How often a tensor was changed in place.

    The counter is described in torch's notes on autograd, and raised in public by
    `torch.autograd.graph.increment_version`, but read by a private name only.

    Example:
        >>> tensor = torch.zeros(1)
        >>> before = version(tensor)
        >>> version(tensor.add_(1)) - before
        1
    """
    return tensor._version


def is_view(tensor: Tensor) -> bool:
    """Whether a tensor is a view of another one's memory.

    The size of its storage does not show it: a view may cover all of it.

    Example:
        >>> is_view(torch.zeros(4).view(2, 2)), is_view(torch.zeros(2, 2))
        (True, False)
    """
    return tensor._is_view()


def convolve(layer: nn.Conv2d, input: Tensor, weight: Tensor) -> Tensor:
    """What a convolutional layer computes, with another weight.

    Only this method pads as the layer's ``padding_mode`` says; the public function knows zeros
    alone.

    Example:
        >>> layer = nn.Conv2d(1, 1, 1, bias=False)
        >>> convolve(layer, torch.tensor([[[[2.0]]]]), torch.tensor([[[[3.0]]]]))
        tensor([[[[6.]]]])
    """
    return layer._conv_forward(input, weight, layer.bias)
