"""Signs as bits: one bit per binary weight, eight to a byte (section 2.6)."""

import numpy as np
import torch
from torch import Tensor


def pack_signs(weight: Tensor) -> Tensor:
    """Pack the signs of a weight, eight to a byte and one row of bytes per output.

    A set bit is +1, and the first weight of a row is the lowest bit of its first byte. Each row
    starts with a new byte; the unused bits of its last byte are zero.

    Args:
        weight: Weights of shape (rows, ...), floating; ±0 counts as +1, as in training.

    Returns:
        Bytes of shape (rows, ceil(row size / 8)), uint8.

    Raises:
        ValueError: The weight is empty or a scalar, or contains NaN, which has no sign.

    Example:
        >>> pack_signs(torch.tensor([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]]))
        tensor([[5],
                [4]], dtype=torch.uint8)
    """
    if weight.dim() < 1 or weight.numel() == 0:
        raise ValueError(f"no signs to pack in a tensor of shape {tuple(weight.shape)}")
    if weight.isnan().any():
        raise ValueError(
            "NaN has no sign to pack: the training diverged; try a lower learning rate"
        )
    positive = (weight.detach().cpu() >= 0).flatten(1) if weight.dim() > 1 else weight[:, None] >= 0
    return torch.from_numpy(np.packbits(positive.numpy(), axis=1, bitorder="little"))


def unpack_signs(
    packed: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Unpack the result of `pack_signs` into weights of -1 and +1.

    Args:
        packed: Bytes of shape (rows, ceil(row size / 8)), uint8.
        shape: Shape of the weights, (rows, ...).
        dtype: Dtype of the result; ±1 is exact in all floating and signed dtypes.

    Raises:
        ValueError: The dtype or shape of the bytes does not match that shape.

    Example:
        >>> unpack_signs(torch.tensor([[5], [4]], dtype=torch.uint8), (2, 3))
        tensor([[ 1., -1.,  1.],
                [-1., -1.,  1.]])
    """
    rows, columns = shape[0], int(np.prod(shape[1:], dtype=np.int64))
    if packed.dtype != torch.uint8 or tuple(packed.shape) != (rows, -(-columns // 8)):
        raise ValueError(
            f"packed weights of shape {tuple(packed.shape)} and dtype {packed.dtype} do not match "
            f"weights of shape {shape}, which take uint8 of shape {(rows, -(-columns // 8))}"
        )
    bits = np.unpackbits(packed.numpy(), axis=1, count=columns, bitorder="little")
    signs = torch.from_numpy(bits).to(dtype).mul_(2).sub_(1)
    return signs.reshape(shape)
