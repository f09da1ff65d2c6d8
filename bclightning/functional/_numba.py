"""How the kernels are compiled, and on how many threads they run."""

import os
from collections.abc import Callable
from typing import Any

import numba
import torch

# Numba's threads do not survive a fork, and a child that wakes them is ended on the spot.
_forked = False


def _note_the_fork() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_note_the_fork)


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Numba's ``njit``, which keeps the machine code on the disk where there is a place for it.

    Args:
        options: Of ``numba.njit``.

    Example:
        >>> @compiled()
        ... def double(x):
        ...     return 2 * x
        >>> double(3)
        6
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            made: Callable[..., Any] = numba.njit(cache=True, **options)(function)
        except RuntimeError:
            # Neither the package's folder nor the user's can be written to.
            made = numba.njit(**options)(function)
        return made

    return decorate


def threads_for(size: int) -> int:
    """Number of threads for an array of `size`: torch's, if each has a part worth its while.

    One is for a plain call, since Numba's pool would wake all of its threads even for that. It is
    always one in a process that was forked.

    Example:
        >>> threads_for(100)
        1
    """
    if _forked:
        return 1
    most = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    parts = max(1, min(most, size // 16384))
    if parts > 1 and numba.get_num_threads() != most:
        numba.set_num_threads(most)
    return parts
