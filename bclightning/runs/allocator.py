"""Keep the memory that a training step frees, for the next step to use."""

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

# glibc takes no more than this for the size from which a block is a mapping of its own.
_LARGEST_THRESHOLD = 32 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Let glibc keep what tensors of up to 32 MB free, instead of giving it back at once.

    Each step frees the same gradients and activations and needs them again. If they are given back
    to the system, their pages are faulted in and zeroed again at every step, which costs up to a
    tenth of the step for a network of a few million weights.

    Returns:
        Whether the C library accepted the setting, as glibc does; elsewhere nothing changes.

    Example:
        >>> keep_freed_memory() == hasattr(ctypes.CDLL(None), "mallopt")
        True
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    done = mallopt(_M_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
    return bool(done and mallopt(_M_TRIM_THRESHOLD, 1024 * 1024 * 1024))
