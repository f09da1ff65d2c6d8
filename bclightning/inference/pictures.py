"""Pictures of PNG and .npy files as raw pixels."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bclightning.errors import UserError


def read_pictures(path: Path, channels: int) -> Tensor:
    """Read the pictures of a file as pixels of shape (count, channels, height, width).

    A PNG (or another file that Pillow knows) is one picture, made grey or coloured as `channels`
    asks. A ``.npy`` array is one or several, with the axes (height, width), (channels, height,
    width) or (count, channels, height, width), and is taken as it is.

    Args:
        path: The file.
        channels: 1 for grey, 3 for colour.

    Raises:
        UserError: There is no such file, or it holds no picture.
    """
    try:
        if path.suffix == ".npy":
            # Without pickles, which could execute.
            pixels = np.load(path, allow_pickle=False)
        else:
            with warnings.catch_warnings():
                # Pillow's warning of a picture that is large enough to be an attack.
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                with Image.open(path) as picture:
                    pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
            pixels = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
    except FileNotFoundError as error:
        raise UserError(f"there is no picture {path}") from error
    except (
        OSError,
        EOFError,
        ValueError,
        SyntaxError,
        UnidentifiedImageError,
        Image.DecompressionBombWarning,
        Image.DecompressionBombError,
    ) as error:
        raise UserError(f"{path} holds no picture: {error}") from error
    if pixels.dtype.kind not in "uif" or not 2 <= pixels.ndim <= 4:
        raise UserError(
            f"{path} holds no picture: an array of {pixels.ndim} axes and type {pixels.dtype}"
        )
    while pixels.ndim < 4:
        pixels = pixels[None]
    pixels = np.ascontiguousarray(pixels, dtype=np.float32)
    if not pixels.size or not np.isfinite(pixels).all():
        raise UserError(f"{path} holds no picture: there are no pixels, or some are no numbers")
    return torch.from_numpy(pixels)
