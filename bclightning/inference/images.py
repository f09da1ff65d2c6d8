"""Pictures of image files and arrays as raw pixels."""

import tokenize
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from bclightning.errors import UserError
from bclightning.inference.sizes import check_size

# Few, and all of them decoded by the library itself: others start programs to be read.
FORMATS = ("PNG", "JPEG", "BMP")

_DAMAGED = (
    EOFError,
    ValueError,
    SyntaxError,
    MemoryError,
    OverflowError,
    tokenize.TokenError,
    Image.DecompressionBombError,
)


def read_pictures(path: Path, image_shape: Sequence[int], white: float) -> Tensor:
    """Read the pictures of a file as raw pixels, as the files of the data set have them.

    An image file is one picture, made grey or coloured as the network's images are, and its 0 to
    255 become 0 to `white`. A ``.npy`` array is one or several, with the axes (height, width),
    (channels, height, width) or (count, channels, height, width), and is taken as it is.

    Args:
        path: A PNG, JPEG or BMP file of 8 bits a channel, or a ``.npy`` array.
        image_shape: Channels, height and width that the pictures must have.
        white: The largest pixel.

    Returns:
        Of shape (count, channels, height, width), float32.

    Raises:
        UserError: There is no such file, it holds no picture, or a picture of another size.
    """
    try:
        pixels = _array(path) if path.suffix == ".npy" else _picture(path, image_shape, white)
    except FileNotFoundError as error:
        raise UserError(f"there is no picture {path}") from error
    except (OSError, *_DAMAGED) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} holds no picture: {said}") from error
    if pixels.dtype.kind not in "uif" or not 2 <= pixels.ndim <= 4:
        raise UserError(
            f"{path} holds no picture: an array of {pixels.ndim} axes and type {pixels.dtype}"
        )
    while pixels.ndim < 4:
        pixels = pixels[None]
    check_size(f"{path}: pictures", pixels.shape[1:], image_shape)
    is_float = pixels.dtype.kind == "f"
    pixels = np.array(pixels, dtype=np.float32, order="C")
    if not pixels.size or not np.isfinite(pixels).all():
        raise UserError(f"{path} holds no picture: there are no pixels, or some are no numbers")
    largest = float(pixels.max())
    if largest > white or pixels.min() < 0:
        raise UserError(
            f"{path} has pixels from {pixels.min():g} to {largest:g}, and those of the data set "
            f"go from 0 to {white:g}; scale them"
        )
    if is_float and 0 < largest <= 1 < white:
        raise UserError(
            f"{path} has pixels between 0 and 1, and those of the data set go up to {white:g}; "
            f"multiply them by {white:g}"
        )
    return torch.from_numpy(pixels)


def _array(path: Path) -> npt.NDArray[Any]:
    # Mapped, so that a header can claim no more than the file holds; without pickles, which could
    # execute.
    array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    return array


def _picture(path: Path, image_shape: Sequence[int], white: float) -> npt.NDArray[Any]:
    channels, height, width = image_shape
    with Image.open(path, formats=FORMATS) as picture:
        # Before a small file becomes a large picture.
        check_size(f"{path}: pictures", (channels, *reversed(picture.size)), image_shape)
        if picture.mode.startswith(("I", "F")):
            raise ValueError(f"its pixels have more than 8 bits (mode {picture.mode})")
        opaque: Image.Image = picture
        if picture.has_transparency_data:
            if picture.convert("RGBA").getchannel("A").getextrema() != (255, 255):
                raise ValueError("it is transparent in places; lay it on a background")
            opaque = picture.convert("RGB")
        pixels = np.asarray(opaque.convert("L" if channels == 1 else "RGB"), dtype=np.float32)
    pixels = pixels.reshape(height, width, channels).transpose(2, 0, 1)
    return pixels * np.float32(white / 255)
