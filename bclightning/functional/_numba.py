"""How the kernels are compiled, and on how many threads they run."""

import os
from collections.abc import Callable
from typing import Any

import numba
import torch

# An array is split only into parts of at least this size: waking the threads costs as much as the
# work on a smaller one.
MIN_PART_SIZE = 16384

# Numba's threads do not survive a fork, and a child process that wakes them is terminated at once.
_forked = False


def _remember_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):  # Windows has no fork.
    os.register_at_fork(after_in_child=_remember_fork)


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Numba's ``njit``, with the machine code cached on disk where a folder for it is writable.

    Args:
        options: Options of ``numba.njit``.

    Example:
        >>> @compiled()
        ... def double(x):
        ...     return 2 * x
        >>> double(3)
        6
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            kernel: Callable[..., Any] = numba.njit(cache=True, **options)(function)
        except RuntimeError:
            # Neither the package's folder nor the user's cache folder is writable.
            kernel = numba.njit(**options)(function)
        return kernel

    return decorate


def threads_for(size: int) -> int:
    """Number of threads for an array of `size`: torch's, or fewer where the parts would be small.

    1 stands for a call of the serial kernel, since a parallel one wakes all threads of Numba's pool
    whatever the number of parts. A forked process always gets 1.

    Example:
        >>> threads_for(100)
        1
    """
    if _forked:
        return 1
    available = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    parts = max(1, min(available, size // MIN_PART_SIZE))
    if parts > 1 and numba.get_num_threads() != available:
        numba.set_num_threads(available)
    return parts
