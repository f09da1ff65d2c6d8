"""The fast path on a CPU: update, clip and binarize a weight in one pass over memory.

`bclightning.functional.binarize` is the specification. Training with binary weights is slow not for
its arithmetic but for the extra passes over weights that do not fit into a cache, so these kernels
do everything to a weight while it is in a register. Numba, which needs no compiler installed,
compiles them when they are first used and caches the machine code on disk for the next process.

Random draws come from a counter: a hash of the weight's index and of a 64-bit key, which torch's
generator provides for each draw. They do not depend on the number of threads, and they resolve
probabilities to 2**-24.
"""

import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import torch
from numba.extending import overload
from torch import Tensor
from torch.nn import Parameter

from bclightning.functional import _torch_private
from bclightning.functional._numba import compiled, threads_for

if sys.platform == "linux":
    # Torch's own thread pool: the threads of a second one would have to wait for torch's to stop
    # spinning.
    numba.config.THREADING_LAYER = "omp"  # type: ignore[attr-defined]

DTYPES = (torch.float32, torch.bfloat16)
"""The dtypes in which the kernels can write binary weights."""

Array = npt.NDArray[Any]

_ONE, _ZERO = np.float32(1), np.float32(0)

# Numba has no bfloat16: the kernels see its bits, as uint16.
_PLUS_BITS, _MINUS_BITS, _NAN_BITS = np.uint16(0x3F80), np.uint16(0xBF80), np.uint16(0x7FC0)

_KERNEL: dict[str, Any] = {
    # No flag that would lose a NaN or change the order of sums.
    "fastmath": {"contract", "arcp", "nsz"},
    "error_model": "numpy",
    "nogil": True,
}


class _Draw(NamedTuple):
    """Whether the binarization is random, and the two halves of the key if it is."""

    random: bool
    low: np.uint32 = np.uint32(0)
    high: np.uint32 = np.uint32(0)


class _Adam(NamedTuple):
    """The constants of one step of Adam."""

    mean_gain: np.float32
    square_decay: np.float32
    square_gain: np.float32
    step_size: np.float32
    square_correction: np.float32
    eps: np.float32


@numba.njit(inline="always")
def _threshold(draw: Any, index: Any) -> Any:
    """The number, uniform in (-1, 1), that a weight is compared with in a random draw.

    It is a hash of the weight's index, with one half of the key before the first round and the
    other after it: a single key added to the index would shift the draws of one step to another's.
    """
    # Each product is truncated to 32 bits at once: Numba's own rule would continue in 64.
    bits = np.uint32((np.uint32(index) + draw.low) * np.uint32(0x9E3779B1))
    bits = np.uint32(bits ^ (bits >> np.uint32(15)) ^ draw.high)
    bits = np.uint32(bits * np.uint32(0x85EBCA6B))
    bits = np.uint32(bits ^ (bits >> np.uint32(13)))
    bits = np.uint32(bits * np.uint32(0xC2B2AE35))
    bits = np.uint32(bits ^ (bits >> np.uint32(16)))
    # The midpoints of 2**24 intervals, so that weights at -1 and 1 are certain.
    return np.float32(bits >> np.uint32(8)) * np.float32(2.0**-23) - np.float32(1 - 2.0**-24)


def _float32(value: Any) -> Any:
    """A float32 as it is, or the float32 of a bfloat16's bits."""


@overload(_float32)
def _float32_of(value: Any) -> Callable[..., Any]:
    def float32(value: Any) -> Any:
        return value

    def bfloat16(value: Any) -> Any:
        # They are the upper half of the same float32's bits.
        return np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)

    return bfloat16 if value == numba.types.uint16 else float32


def _sign(value: Any, dtype: Any) -> Any:
    """The sign of a float32, -1 or +1 (NaN for NaN), as float32 or as a bfloat16's bits."""


# With statements the loops are a tenth faster than with conditional expressions.
@overload(_sign)
def _sign_as(value: Any, dtype: Any) -> Callable[..., Any]:
    def float32(value: Any, dtype: Any) -> Any:
        if value < _ZERO:
            return -_ONE
        if value >= _ZERO:
            return _ONE
        return value

    def bfloat16(value: Any, dtype: Any) -> Any:
        if value < _ZERO:
            return _MINUS_BITS
        if value >= _ZERO:
            return _PLUS_BITS
        return _NAN_BITS

    return bfloat16 if dtype.dtype == numba.types.uint16 else float32


@numba.njit(inline="always")
def _updated(weight: Any, gradient: Any, mean: Any, square: Any, adam: Any, i: Any) -> Any:
    """Update one weight by its gradient; the new weight, clipped to [-1, 1] (NaN stays NaN)."""
    m = mean[i] + adam.mean_gain * (gradient - mean[i])
    v = adam.square_decay * square[i] + adam.square_gain * gradient * gradient
    mean[i] = m
    square[i] = v
    w = weight[i] - adam.step_size * m / (np.sqrt(v) * adam.square_correction + adam.eps)
    w = -_ONE if w < -_ONE else w
    w = _ONE if w > _ONE else w
    weight[i] = w
    return w


# Each kernel has two loops instead of one with a condition inside, which would slow down the loop
# without a draw. Indices are unsigned: signed ones could count from the end, and a loop that allows
# for this is not vectorized, which takes ten times as long.


@compiled(**_KERNEL)
def _binarize(weight: Any, binary: Any, draw: Any, start: Any, stop: Any) -> None:
    if draw.random:
        for i in range(np.uint64(start), np.uint64(stop)):
            binary[i] = _sign(weight[i] - _threshold(draw, i), binary.dtype)
    else:
        for i in range(np.uint64(start), np.uint64(stop)):
            binary[i] = _sign(weight[i], binary.dtype)


@compiled(**_KERNEL)
def _update(
    weight: Any, gradient: Any, mean: Any, square: Any, adam: Any, draw: Any, start: Any, stop: Any
) -> None:
    # The gradient is read for the last time here: the binary weight takes its place.
    if draw.random:
        for i in range(np.uint64(start), np.uint64(stop)):
            w = _updated(weight, _float32(gradient[i]), mean, square, adam, i)
            gradient[i] = _sign(w - _threshold(draw, i), gradient.dtype)
    else:
        for i in range(np.uint64(start), np.uint64(stop)):
            w = _updated(weight, _float32(gradient[i]), mean, square, adam, i)
            gradient[i] = _sign(w, gradient.dtype)


@compiled(parallel=True, error_model="numpy")
def _in_parts(
    parts: Any, weight: Any, binary: Any, mean: Any, square: Any, adam: Any, draw: Any
) -> None:
    size = -(-weight.size // parts)
    for part in numba.prange(parts):
        start, stop = part * size, min(weight.size, (part + 1) * size)
        # Numba compiles only the branch that fits the argument's type.
        if adam is None:
            _binarize(weight, binary, draw, start, stop)
        else:
            _update(weight, binary, mean, square, adam, draw, start, stop)


def supports(*tensors: Tensor, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> bool:
    """Whether the kernels can work on these tensors: dense and contiguous, on a CPU, of `dtypes`.

    Example:
        >>> supports(torch.zeros(2, 2)), supports(torch.zeros(2, 2).T[:1])
        (True, False)
    """
    return not _torch_private.recording() and all(
        # Subclasses, and the wrappers that tracing uses, have no memory to work on.
        type(tensor) in (Tensor, Parameter)
        and not _torch_private.is_wrapped(tensor)
        and tensor.device.type == "cpu"
        and tensor.dtype in dtypes
        and tensor.layout == torch.strided
        and tensor.is_contiguous()
        and 0 < tensor.numel() < 2**32
        for tensor in tensors
    )


def draw_key(generator: torch.Generator | None = None) -> int:
    """Draw the key of one random draw of a weight: 64 bits from torch's generator.

    Example:
        >>> draw_key(torch.Generator().manual_seed(0)) == draw_key(torch.Generator().manual_seed(1))
        False
    """
    return int(torch.randint(-(2**63), 2**63 - 1, (), generator=generator)) % 2**64


def binarize(weight: Tensor, dtype: torch.dtype = torch.float32, key: int | None = None) -> Tensor:
    """Binarize to ±1 without a gradient, deterministically or, with a key, stochastically.

    Args:
        weight: Latent weights that the kernels support.
        dtype: The result's dtype, ``torch.float32`` or ``torch.bfloat16``; ±1 is exact in both.
        key: Key of the random draw; `None` for the sign.

    Returns:
        A new tensor; NaN stays NaN.

    Example:
        >>> binarize(torch.tensor([-0.3, -0.0, 0.7]))
        tensor([-1.,  1.,  1.])
    """
    binary = torch.empty(weight.shape, dtype=dtype)
    arrays = (_array(weight), _array(binary))
    draw, parts = _draw(key), threads_for(weight.numel())
    if parts == 1:
        _binarize(*arrays, draw, 0, weight.numel())
    else:
        _in_parts(parts, *arrays, None, None, None, draw)
    return binary


def adam_update_(
    weight: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    *,
    step: int,
    learning_rate: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    key: int | None = None,
) -> Tensor:
    """Update a latent weight by Adam, clip it and binarize it, in one pass.

    The weight and Adam's two moments are updated in place. **The gradient is lost**: its memory
    holds the binary weights that are returned, so that they need none of their own.

    Args:
        weight: Latent weights that the kernels support, like both moments.
        gradient: The gradient, in float32 or bfloat16.
        mean: Adam's first moment.
        square: Adam's second moment.
        step: Number of this step, counted from 1.
        learning_rate: Learning rate of this weight, scaling included.
        betas: Decay rates of the two moments.
        eps: Number added to the root of the second moment.
        key: Key of the random draw; `None` for the sign.

    Returns:
        The binary weights that belong to the new latent ones, in the gradient's dtype.

    Example:
        >>> weight, gradient = torch.tensor([0.5, -0.999]), torch.tensor([2.0, 0.1])
        >>> moments = torch.zeros(2), torch.zeros(2)
        >>> adam_update_(weight, gradient, *moments, step=1, learning_rate=0.25), weight
        (tensor([ 1., -1.]), tensor([ 0.2500, -1.0000]))
    """
    adam = _Adam(
        mean_gain=np.float32(1 - betas[0]),
        square_decay=np.float32(betas[1]),
        square_gain=np.float32(1 - betas[1]),
        step_size=np.float32(learning_rate / (1 - betas[0] ** step)),
        square_correction=np.float32(1 / math.sqrt(1 - betas[1] ** step)),
        eps=np.float32(eps),
    )
    arrays = (_array(weight), _array(gradient), _array(mean), _array(square))
    draw, parts = _draw(key), threads_for(weight.numel())
    if parts == 1:
        _update(*arrays, adam, draw, 0, weight.numel())
    else:
        _in_parts(parts, *arrays, adam, draw)
    # Autograd does not see what Numba writes.
    torch.autograd.graph.increment_version((weight, gradient, mean, square))
    return gradient


def _array(tensor: Tensor) -> Array:
    """A tensor's memory as a flat array; the bits, as uint16, where it is in bfloat16."""
    flat = tensor.detach().view(-1)
    if flat.dtype == torch.bfloat16:
        flat = flat.view(torch.uint16)
    return flat.numpy()


def _draw(key: int | None) -> _Draw:
    if key is None:
        return _Draw(False)
    # Mixed (splitmix64), so that keys that differ little give unrelated draws.
    mixed = (key + 0x9E3779B97F4A7C15) % 2**64
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
    mixed ^= mixed >> 31
    return _Draw(True, np.uint32(mixed & 0xFFFFFFFF), np.uint32(mixed >> 32))
