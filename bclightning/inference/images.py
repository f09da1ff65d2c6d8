"""Image files and arrays as raw pixels, of the size that a network takes."""

import math
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
from bclightning.formatting import printable
from bclightning.image_files import FORMATS, Fit, decode, read_bounded, without_warnings

_DAMAGED = (
    EOFError,
    ValueError,
    SyntaxError,
    MemoryError,
    OverflowError,
    tokenize.TokenError,
    Image.DecompressionBombError,
)


def check_size(what: str, given: Sequence[int], wanted: Sequence[int]) -> None:
    """Check that images have the size that a network takes.

    Args:
        what: Name of the images in the error message.
        given: Channels, height and width of the images.
        wanted: Channels, height and width that the network takes.

    Raises:
        UserError: The sizes differ.

    Example:
        >>> check_size("images", (3, 32, 30), (3, 32, 32))
        Traceback (most recent call last):
        bclightning.errors.UserError: images of 3 x 32 x 30 do not fit a network for 3 x 32 x 32 \
(channels x height x width)
    """
    if tuple(given) != tuple(wanted):
        raise UserError(
            f"{what} of {_sides(given)} do not fit a network for {_sides(wanted)}"
            f"{' (channels x height x width)' if len(wanted) == 3 else ''}"
        )


def read_images(
    path: Path, image_shape: Sequence[int], max_pixel: float, fit: Fit | None = None
) -> Tensor:
    """Read the images of a file as raw pixels, as the files of the data set have them.

    An image file is one image, converted to grey or RGB as the network takes it, and its 0 to 255
    become 0 to `max_pixel`. A ``.npy`` array holds one image or several, with the axes (height,
    width), (channels, height, width) or (count, channels, height, width); its values are not
    scaled. So it is with signals (channels, length) and vectors (features,).

    Args:
        path: A PNG, JPEG, BMP or WebP file, or a ``.npy`` array. Without `fit` the image has 8 bits
            a channel and no transparent parts.
        image_shape: Channels, height and width that the images must have; channels and length of a
            signal, or the number of features.
        max_pixel: The largest pixel of the data set's files; infinity for values that are none.
        fit: How an image file of another size is resized, as in training
            (`bclightning.image_files.decode`); ``None`` if it must have the size.

    Returns:
        Pixels of shape (count, channels, height, width), float32.

    Raises:
        UserError: There is no such file, it holds no image, or an image of another size.
    """
    shown = printable(str(path))
    try:
        if path.suffix == ".npy":
            pixels = _array(path)
        elif len(image_shape) != 3 or math.isinf(max_pixel):
            raise ValueError(f"the model takes arrays (.npy) of shape {_sides(image_shape)}")
        elif fit is not None:
            with without_warnings():
                pixels = decode(read_bounded(path), image_shape, fit)
        else:
            pixels = _decoded(path, image_shape, max_pixel)
    except FileNotFoundError as error:
        raise UserError(f"there is no image {shown}") from error
    except (OSError, *_DAMAGED) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise _no_image(shown, printable(said)) from error
    axes = len(image_shape) + 1
    if pixels.dtype.kind not in "uif" or not min(2, axes - 1) <= pixels.ndim <= axes:
        raise _no_image(shown, f"an array of {pixels.ndim} axes and type {pixels.dtype}")
    while pixels.ndim < axes:
        pixels = pixels[None]
    check_size(f"{shown}: images", pixels.shape[1:], image_shape)
    is_float = pixels.dtype.kind == "f"
    pixels = np.array(pixels, dtype=np.float32, order="C")
    if not pixels.size:
        raise _no_image(shown, "the array is empty")
    if not np.isfinite(pixels).all():
        raise _no_image(shown, "the array contains NaN or infinity")
    largest = float(pixels.max())
    if math.isinf(max_pixel):
        return torch.from_numpy(pixels)
    if largest > max_pixel or pixels.min() < 0:
        raise UserError(
            f"{shown} has pixels from {pixels.min():g} to {largest:g}, and those of the data set "
            f"go from 0 to {max_pixel:g}; scale them"
        )
    if is_float and 0 < largest <= 1 < max_pixel:
        raise UserError(
            f"{shown} has pixels between 0 and 1, and those of the data set go up to "
            f"{max_pixel:g}; multiply them by {max_pixel:g}"
        )
    return torch.from_numpy(pixels)


def _no_image(shown: str, reason: str) -> UserError:
    return UserError(f"{shown} holds no image: {reason}")


def _array(path: Path) -> npt.NDArray[Any]:
    # Mapped, so that a header can claim no more than the file holds; without pickles, which could
    # execute.
    array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    return array


def _decoded(path: Path, image_shape: Sequence[int], max_pixel: float) -> npt.NDArray[Any]:
    channels, height, width = image_shape
    with Image.open(path, formats=FORMATS) as image:
        # Before decoding: a small file may hold a very large image.
        check_size(
            f"{printable(str(path))}: images", (channels, *reversed(image.size)), image_shape
        )
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"its pixels have more than 8 bits (mode {image.mode})")
        opaque: Image.Image = image
        if image.has_transparency_data:
            if image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
                raise ValueError("it is partly transparent; put it on a background")
            opaque = image.convert("RGB")
        pixels = np.asarray(opaque.convert("L" if channels == 1 else "RGB"), dtype=np.float32)
    pixels = pixels.reshape(height, width, channels).transpose(2, 0, 1)
    return pixels * np.float32(max_pixel / 255)


def _sides(shape: Sequence[int]) -> str:
    return " x ".join(str(side) for side in shape)
