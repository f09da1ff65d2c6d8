"""Products with packed signs, computed on the bits: no multiplications, few memory reads.

A byte holds the signs of eight inputs and so selects one of 256 signed sums of them. These sums are
computed once per eight inputs and serve all outputs, so that a product of a vector with a matrix
takes one look-up and one addition per eight weights. This is faster for a single vector, where a
product in floats waits for its weights to arrive from memory, and slower for many vectors.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bclightning.functional._numba import compiled, threads_for

_INLINE: dict[str, Any] = {"inline": "always", "fastmath": {"contract"}, "error_model": "numpy"}
_LOOP: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


@numba.njit(**_INLINE)
def _sums(inputs: Any, group: Any, table: Any) -> None:
    """Write the 256 signed sums of the eight inputs of a group into a table."""
    first = 8 * group
    total = np.float32(0)
    for k in range(8):
        total += inputs[first + k]
    table[0] = -total
    for k in range(8):
        twice = np.float32(2) * inputs[first + k]
        for b in range(1 << k):
            table[b + (1 << k)] = table[b] + twice


@compiled(fastmath={"reassoc"}, **_LOOP)
def _product(bits: Any, inputs: Any, out: Any, start: Any, stop: Any) -> None:
    groups = bits.shape[0]
    a, b = np.empty(256, np.float32), np.empty(256, np.float32)
    c, d = np.empty(256, np.float32), np.empty(256, np.float32)
    for j in range(start, stop):
        out[j] = np.float32(0)
    # Four groups at a time, so that an output is read and written once per 32 weights.
    whole = groups - groups % 4
    for g in range(0, whole, 4):
        _sums(inputs, g, a)
        _sums(inputs, g + 1, b)
        _sums(inputs, g + 2, c)
        _sums(inputs, g + 3, d)
        for j in range(start, stop):
            first = a[bits[g, j]] + b[bits[g + 1, j]]
            out[j] += first + (c[bits[g + 2, j]] + d[bits[g + 3, j]])
    for g in range(whole, groups):
        _sums(inputs, g, a)
        for j in range(start, stop):
            out[j] += a[bits[g, j]]


@compiled(parallel=True, error_model="numpy")
def _product_in_parts(parts: Any, bits: Any, inputs: Any, out: Any) -> None:
    size = -(-out.size // parts)
    for part in numba.prange(parts):
        _product(bits, inputs, out, part * size, min(out.size, (part + 1) * size))


def by_groups(packed: Tensor) -> Tensor:
    """Arrange packed rows for `bit_linear`: for each eight inputs, the bytes of all outputs.

    Args:
        packed: Result of `pack_signs`, of shape (outputs, groups).

    Returns:
        A contiguous copy of shape (groups, outputs).

    Example:
        >>> by_groups(torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8)).tolist()
        [[1, 3], [2, 4]]
    """
    return packed.T.contiguous()


def bit_linear(inputs: Tensor, bits: Tensor) -> Tensor:
    """Multiply inputs by a packed matrix of ±1, one vector after the other.

    Args:
        inputs: Inputs of shape (batch, features), float32, on a CPU.
        bits: Result of `by_groups`, of shape (ceil(features / 8), outputs).

    Returns:
        ``inputs @ signs.T`` up to the order of sums, of shape (batch, outputs), float32.

    Raises:
        ValueError: The two shapes do not match.

    Example:
        >>> from bclightning.functional.packing import pack_signs
        >>> bits = by_groups(pack_signs(torch.tensor([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]])))
        >>> bit_linear(torch.tensor([[1.0, 2.0, 4.0]]), bits)
        tensor([[3., 1.]])
    """
    groups, outputs = bits.shape
    if inputs.dim() != 2 or -(-inputs.shape[1] // 8) != groups:
        raise ValueError(
            f"inputs of shape {tuple(inputs.shape)} do not match a packed matrix for "
            f"{8 * groups - 7} to {8 * groups} features"
        )
    padded = np.zeros((len(inputs), 8 * groups), np.float32)
    padded[:, : inputs.shape[1]] = inputs.detach().numpy()
    result: npt.NDArray[np.float32] = np.empty((len(inputs), outputs), np.float32)
    matrix = bits.numpy()
    parts = threads_for(bits.numel())
    for vector, out in zip(padded, result, strict=True):
        if parts == 1:
            _product(matrix, vector, out, 0, outputs)
        else:
            _product_in_parts(parts, matrix, vector, out)
    return torch.from_numpy(result)
