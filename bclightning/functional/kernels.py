"""The fast path on a CPU: update, clip and binarization of a weight in one pass over memory.

`bclightning.functional.binarize` is the specification. What costs time in training with binary
weights is not arithmetic but the extra passes over weights that do not fit into a cache, so these
kernels do all that is to be done with a weight while it is in a register. They are compiled by
Numba, which brings its compiler along, at their first use, and kept on the disk for the next
process.

Random draws come from a counter: a hash of the weight's index and of a key of 64 bits that torch's
generator gives for each draw. They are the same whatever the number of threads, and they resolve
probabilities to 2**-24.
"""

import math
import sys
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import Parameter

from bclightning.functional._numba import compiled, threads_for

if sys.platform == "linux":
    # Torch's own pool of threads: a second one would have to wait until torch's stop spinning.
    numba.config.THREADING_LAYER = "omp"  # type: ignore[attr-defined]

# What a kernel is called with in place of a key where nothing is drawn.
_NO_KEY = np.uint32(0)

# Of the binary weights that the kernels write.
DTYPES = (torch.float32, torch.bfloat16)

# bfloat16, which Numba does not know, as bits.
_PLUS, _MINUS, _NAN = np.uint16(0x3F80), np.uint16(0xBF80), np.uint16(0x7FC0)

_ONE, _ZERO = np.float32(1), np.float32(0)

# Nothing that would lose a NaN or the order of sums.
_FAST = {"contract", "arcp", "nsz"}

_INLINE: dict[str, Any] = {"inline": "always", "fastmath": _FAST, "error_model": "numpy"}
_LOOP: dict[str, Any] = {"fastmath": _FAST, "error_model": "numpy", "nogil": True}


@numba.njit(**_INLINE)
def _threshold(index: Any, low: Any, high: Any) -> Any:
    """A draw from the uniform distribution over (-1, 1), of a counter and a key.

    Two rounds of multiplication and shift around the key's halves; a single key that is added to
    the counter would make the draws of one step those of another, moved along.
    """
    # Each product is cut to 32 bits at once: Numba's own rule would go on in 64.
    bits = np.uint32((np.uint32(index) + low) * np.uint32(0x9E3779B1))
    bits = np.uint32(bits ^ (bits >> np.uint32(15)) ^ high)
    bits = np.uint32(bits * np.uint32(0x85EBCA6B))
    bits = np.uint32(bits ^ (bits >> np.uint32(13)))
    bits = np.uint32(bits * np.uint32(0xC2B2AE35))
    bits = np.uint32(bits ^ (bits >> np.uint32(16)))
    # The middles of 2**24 intervals, so that weights at -1 and 1 are certain.
    return np.float32(bits >> np.uint32(8)) * np.float32(2.0**-23) - np.float32(1 - 2.0**-24)


@numba.njit(**_INLINE)
def _sign(value: Any) -> Any:
    return -_ONE if value < _ZERO else (_ONE if value >= _ZERO else value)


@numba.njit(**_INLINE)
def _sign_bits(value: Any) -> Any:
    return _MINUS if value < _ZERO else (_PLUS if value >= _ZERO else _NAN)


@numba.njit(**_INLINE)
def _float(bits: Any) -> Any:
    """The float32 that bfloat16's bits stand for: they are its upper half."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@compiled(**_LOOP)
def _binarize(weight: Any, out: Any, first: Any, draw: Any, low: Any, high: Any) -> None:
    if draw:
        for i in range(weight.size):
            out[i] = _sign(weight[i] - _threshold(first + i, low, high))
    else:
        for i in range(weight.size):
            out[i] = _sign(weight[i])


@compiled(**_LOOP)
def _binarize_bits(weight: Any, out: Any, first: Any, draw: Any, low: Any, high: Any) -> None:
    if draw:
        for i in range(weight.size):
            out[i] = _sign_bits(weight[i] - _threshold(first + i, low, high))
    else:
        for i in range(weight.size):
            out[i] = _sign_bits(weight[i])


@numba.njit(**_INLINE)
def _adam(weight: Any, g: Any, mean: Any, square: Any, i: Any, c: Any) -> Any:
    """Adam's update of one weight by its gradient, clipped to [-1, 1]; NaN stays NaN."""
    m = mean[i] + c[0] * (g - mean[i])
    v = c[1] * square[i] + c[2] * g * g
    mean[i] = m
    square[i] = v
    w = weight[i] - c[3] * m / (np.sqrt(v) * c[4] + c[5])
    w = -_ONE if w < -_ONE else w
    w = _ONE if w > _ONE else w
    weight[i] = w
    return w


@compiled(**_LOOP)
def _update(
    weight: Any,
    gradient: Any,
    mean: Any,
    square: Any,
    c: Any,
    first: Any,
    draw: Any,
    low: Any,
    high: Any,
) -> None:
    # The gradient's memory takes the binary weights: it is read for the last time here.
    if draw:
        for i in range(weight.size):
            w = _adam(weight, gradient[i], mean, square, i, c)
            gradient[i] = _sign(w - _threshold(first + i, low, high))
    else:
        for i in range(weight.size):
            gradient[i] = _sign(_adam(weight, gradient[i], mean, square, i, c))


@compiled(**_LOOP)
def _update_bits(
    weight: Any,
    gradient: Any,
    mean: Any,
    square: Any,
    c: Any,
    first: Any,
    draw: Any,
    low: Any,
    high: Any,
) -> None:
    if draw:
        for i in range(weight.size):
            w = _adam(weight, _float(gradient[i]), mean, square, i, c)
            gradient[i] = _sign_bits(w - _threshold(first + i, low, high))
    else:
        for i in range(weight.size):
            g = _float(gradient[i])
            gradient[i] = _sign_bits(_adam(weight, g, mean, square, i, c))


_PARALLEL: dict[str, Any] = {"parallel": True, "error_model": "numpy"}


@compiled(**_PARALLEL)
def _binarize_in_parts(parts: Any, weight: Any, out: Any, draw: Any, low: Any, high: Any) -> None:
    size = -(-weight.size // parts)
    for part in numba.prange(parts):
        a, b = part * size, min(weight.size, (part + 1) * size)
        _binarize(weight[a:b], out[a:b], a, draw, low, high)


@compiled(**_PARALLEL)
def _binarize_bits_in_parts(
    parts: Any, weight: Any, out: Any, draw: Any, low: Any, high: Any
) -> None:
    size = -(-weight.size // parts)
    for part in numba.prange(parts):
        a, b = part * size, min(weight.size, (part + 1) * size)
        _binarize_bits(weight[a:b], out[a:b], a, draw, low, high)


@compiled(**_PARALLEL)
def _update_in_parts(
    parts: Any,
    weight: Any,
    gradient: Any,
    mean: Any,
    square: Any,
    c: Any,
    draw: Any,
    low: Any,
    high: Any,
) -> None:
    size = -(-weight.size // parts)
    for part in numba.prange(parts):
        a, b = part * size, min(weight.size, (part + 1) * size)
        _update(weight[a:b], gradient[a:b], mean[a:b], square[a:b], c, a, draw, low, high)


@compiled(**_PARALLEL)
def _update_bits_in_parts(
    parts: Any,
    weight: Any,
    gradient: Any,
    mean: Any,
    square: Any,
    c: Any,
    draw: Any,
    low: Any,
    high: Any,
) -> None:
    size = -(-weight.size // parts)
    for part in numba.prange(parts):
        a, b = part * size, min(weight.size, (part + 1) * size)
        _update_bits(weight[a:b], gradient[a:b], mean[a:b], square[a:b], c, a, draw, low, high)


def supports(*tensors: Tensor, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> bool:
    """Whether the kernels can work on these tensors: dense and contiguous, on a CPU, of `dtypes`.

    Example:
        >>> supports(torch.zeros(2, 2)), supports(torch.zeros(2, 2).T[:1])
        (True, False)
    """
    return not torch.compiler.is_compiling() and all(
        # Subclasses and wrappers, as tracing makes them, have no memory to work on.
        type(tensor) in (Tensor, Parameter)
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        and tensor.device.type == "cpu"
        and tensor.dtype in dtypes
        and tensor.layout == torch.strided
        and tensor.is_contiguous()
        and 0 < tensor.numel() < 2**32
        for tensor in tensors
    )


def draw_key(generator: torch.Generator | None = None) -> int:
    """A key for one draw of a weight, 64 bits from torch's generator.

    Example:
        >>> draw_key(torch.Generator().manual_seed(0)) == draw_key(torch.Generator().manual_seed(1))
        False
    """
    return int(torch.randint(-(2**63), 2**63 - 1, (), generator=generator)) % 2**64


def binarize(weight: Tensor, dtype: torch.dtype = torch.float32, key: int | None = None) -> Tensor:
    """Binarize to ±1 without a gradient, deterministically or, with a key, stochastically.

    Args:
        weight: Latent weights that the kernels support.
        dtype: Of the result, ``torch.float32`` or ``torch.bfloat16``, in which ±1 is exact.
        key: Of the draw; none for the sign.

    Returns:
        A new tensor; NaN stays NaN.

    Example:
        >>> binarize(torch.tensor([-0.3, -0.0, 0.7]))
        tensor([-1.,  1.,  1.])
    """
    out = torch.empty(weight.shape, dtype=dtype)
    flat = _flat(weight)
    parts = threads_for(weight.numel())
    bits = dtype == torch.bfloat16
    result = _bits(out) if bits else _flat(out)
    if parts == 1:
        (_binarize_bits if bits else _binarize)(flat, result, 0, *_halves(key))
    else:
        whole = _binarize_bits_in_parts if bits else _binarize_in_parts
        whole(parts, flat, result, *_halves(key))
    return out


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
    """Adam's step of a latent weight, its clipping and its binarization, in one pass.

    In place of ``weight`` and of Adam's two moments. **The gradient is lost**: its memory holds the
    binary weights that are returned, so that they take none of their own.

    Args:
        weight: Latent weights that the kernels support, as the moments that follow.
        gradient: The gradient, which may be in bfloat16 too.
        mean: Adam's first moment.
        square: Adam's second moment.
        step: Number of this step, counted from 1.
        learning_rate: Already scaled, if it is to be.
        betas: Decay of the moments.
        eps: Added to the root of the second moment.
        key: Of the draw, for stochastic binarization; none for the sign.

    Returns:
        The binary weights that belong to the new latent ones, in the gradient's dtype.

    Example:
        >>> weight, gradient = torch.tensor([0.5, -0.999]), torch.tensor([2.0, 0.1])
        >>> moments = torch.zeros(2), torch.zeros(2)
        >>> adam_update_(weight, gradient, *moments, step=1, learning_rate=0.25), weight
        (tensor([ 1., -1.]), tensor([ 0.2500, -1.0000]))
    """
    constants = tuple(
        np.float32(value)
        for value in (
            1 - betas[0],
            betas[1],
            1 - betas[1],
            learning_rate / (1 - betas[0] ** step),
            1 / math.sqrt(1 - betas[1] ** step),
            eps,
        )
    )
    parts = threads_for(weight.numel())
    bits = gradient.dtype == torch.bfloat16
    flat = [
        _flat(weight),
        _bits(gradient) if bits else _flat(gradient),
        _flat(mean),
        _flat(square),
    ]
    if parts == 1:
        (_update_bits if bits else _update)(*flat, constants, 0, *_halves(key))
    else:
        whole = _update_bits_in_parts if bits else _update_in_parts
        whole(parts, *flat, constants, *_halves(key))
    # Numba writes where autograd does not look.
    torch.autograd.graph.increment_version((weight, gradient, mean, square))
    return gradient


def _flat(tensor: Tensor) -> npt.NDArray[Any]:
    return tensor.detach().view(-1).numpy()


def _bits(tensor: Tensor) -> npt.NDArray[Any]:
    return tensor.view(-1).view(torch.int16).numpy().view(np.uint16)


def _halves(key: int | None) -> tuple[bool, np.uint32, np.uint32]:
    if key is None:
        return False, _NO_KEY, _NO_KEY
    # Mixed (splitmix64), so that keys which differ little give draws which have nothing in common.
    mixed = (key + 0x9E3779B97F4A7C15) % 2**64
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
    mixed ^= mixed >> 31
    return True, np.uint32(mixed & 0xFFFFFFFF), np.uint32(mixed >> 32)
