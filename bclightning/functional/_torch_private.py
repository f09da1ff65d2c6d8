"""The private names of torch that training depends on, each with the reason.

`pyproject.toml` has an upper bound for torch, and `tests/functional/test_torch_private.py` shows
what would break without each of them.
"""

import functools
from collections.abc import Callable
from typing import Any

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


def tracing() -> bool:
    """Whether `torch.jit.trace` is running, or the older ONNX export, which is built on it.

    Example:
        >>> tracing()
        False
    """
    # What `torch.jit.is_tracing` calls, without its own call, since each product asks. A compiler
    # cannot compile that question.
    return not torch.compiler.is_compiling() and torch._C._is_tracing()


def recording() -> bool:
    """Whether something records the operators that run: a trace, a graph, or a dispatch mode.

    A recorder has to see operators, and neither sees what Numba does nor keeps what a function
    with a gradient of its own means. Torch says in public that it compiles or exports and that
    `torch.jit.trace` runs, and nothing of its modes (`torch.fx.experimental.proxy_tensor.make_fx`,
    counters of operations, fake tensors).

    Example:
        >>> from torch.utils.flop_counter import FlopCounterMode
        >>> with FlopCounterMode(display=False):
        ...     recording()
        True
        >>> recording()
        False
    """
    # In this order: a compiler cannot compile the other two questions.
    return torch.compiler.is_compiling() or tracing() or torch._C._len_torch_dispatch_stack() > 0


def add_metadata(state: Any, prefix: str, key: str, value: Any) -> None:
    """Note something of a module in the state that it is being saved to.

    Torch keeps the version of each module there, and hands it back when the state is loaded; a
    state that is a plain mapping has no place for it.

    Args:
        state: What ``_save_to_state_dict`` was given.
        prefix: Prefix of the module's keys.
        key: Name of the note.
        value: The note, as plain data.

    Example:
        >>> state = nn.Linear(1, 1).state_dict(prefix="a.")
        >>> add_metadata(state, "a.", "note", 7)
        >>> state._metadata["a"]["note"]
        7
    """
    if hasattr(state, "_metadata"):
        state._metadata.setdefault(prefix[:-1], {})[key] = value


def after_loading(kind: type[nn.Module], then: Callable[[nn.Module, dict[str, Any]], None]) -> None:
    """Call a function after a module of a class, or of one below it, has loaded its own state.

    Torch has such hooks for each module alone, and a module that knows nothing of this package has
    none of ours. Nothing is done at any other moment.

    Args:
        kind: Class of the modules.
        then: Function of the module and of the metadata that were saved with its state.

    Example:
        >>> class Own(nn.Linear): ...
        >>> after_loading(Own, lambda module, metadata: print("version", metadata["version"]))
        >>> _ = Own(1, 1).load_state_dict(nn.Linear(1, 1).state_dict())
        version 1
    """
    load = kind._load_from_state_dict

    @functools.wraps(load)
    def loading(
        self: nn.Module, state: Any, prefix: str, local_metadata: Any, *args: Any, **kwargs: Any
    ) -> None:
        load(self, state, prefix, local_metadata, *args, **kwargs)
        then(self, local_metadata)

    kind._load_from_state_dict = loading  # type: ignore[assignment, method-assign]


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
