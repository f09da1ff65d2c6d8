"""Where stochastic layers take their draws from: torch's generator, or one that processes share."""

from collections.abc import Callable

import torch
from torch import Tensor

from bclightning.functional import kernels

_fetch_state: Callable[[], Tensor] | None = None
_shared: torch.Generator | None = None


def share_draws(fetch_state: Callable[[], Tensor] | None) -> Tensor | None:
    """Take the draws of training from a generator that all processes of a training have alike.

    A mini-batch has one draw of the weights (algorithm 1). Where processes train on a part of it
    each, their sum of gradients is that of the mini-batch only if all parts had the same draw.

    Args:
        fetch_state: Returns the generator's state, the same in all processes. It is called at the
            next draw, when each process has set its seeds. `None` for torch's own generator again.

    Returns:
        The state that the shared generator was left in; `None` where there was none.

    Example:
        >>> state = torch.Generator().manual_seed(0).get_state()
        >>> share_draws(lambda: state)
        >>> first, second = next_key(), next_key()
        >>> left = share_draws(lambda: state)
        >>> next_key() == first, shares_draws()
        (True, True)
        >>> _ = share_draws(lambda: left)
        >>> next_key() in (first, second)
        False
        >>> _ = share_draws(None)
        >>> shares_draws()
        False
    """
    global _fetch_state, _shared
    left = None if _shared is None else _shared.get_state()
    _fetch_state, _shared = fetch_state, None
    return left


def shares_draws() -> bool:
    """Whether the draws of training come from a generator that processes share."""
    return _fetch_state is not None or _shared is not None


def next_key() -> int:
    """The key of the next random draw of a weight in training."""
    global _fetch_state, _shared
    if _fetch_state is not None:
        _shared = torch.Generator()
        _shared.set_state(_fetch_state())
        _fetch_state = None
    return kernels.draw_key(_shared)
