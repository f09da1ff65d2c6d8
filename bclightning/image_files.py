"""Image files of any size and mode as pixels of one shape."""

import contextlib
import io
import stat
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

# Formats that Pillow decodes itself; for others, such as EPS, it starts another program.
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
"""Endings of the names of image files, in lower case."""

Fit = Literal["crop", "stretch", "pad"]
"""How an image of another aspect ratio is made to fit."""

# More than any photo; a file that is larger is another thing with an image's name.
MAX_FILE_BYTES = 2**29

# Pillow's own limit, where it begins to warn of decompression bombs: 89 million.
MAX_PIXELS = int(Image.MAX_IMAGE_PIXELS or 0)

# What cameras write of how they were held, and what turns the image upright.
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Decode without Pillow's warnings: what it warns of is refused, or does not matter here.

    For all threads: it belongs around them, not into them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\..*")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def read_bounded(path: Path) -> bytes:
    """The content of an image file.

    Args:
        path: The file.

    Raises:
        ValueError: It is no regular file, or larger than any photo.
        OSError: It cannot be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    if status.st_size > MAX_FILE_BYTES:
        raise ValueError(f"it has {status.st_size:,} bytes, more than any photo")
    return path.read_bytes()


def decode(content: bytes, shape: Sequence[int], fit: Fit) -> npt.NDArray[np.uint8]:
    """Pixels of an image file, upright and resized.

    An image is turned as its EXIF orientation says; its colours become grey or RGB, transparent
    parts white, and 16 bits of a channel 8. Then it is resized with Pillow's bilinear filter, which
    averages where an image becomes smaller. Of a JPEG that is much too large only a part of the
    detail is decoded, at least twice as much as is kept. An image that has the size already keeps
    its pixels.

    Args:
        content: Content of a PNG, JPEG, BMP or WebP file; of an animation the first frame counts.
        shape: Channels (1 for grey or 3 for RGB), height and width of the result.
        fit: How an image of another aspect ratio is made to fit. ``crop``: its centre, as large as
            possible; ``stretch``: all of it, distorted; ``pad``: all of it, between black bars.

    Returns:
        Pixels of shape (channels, height, width).

    Raises:
        ValueError: The content is no such image, damaged, or has more than 89 million pixels.

    Example:
        >>> file = io.BytesIO()
        >>> Image.new("P", (40, 20)).save(file, "PNG")
        >>> decode(file.getvalue(), (3, 8, 8), "crop").shape
        (3, 8, 8)
    """
    channels, height, width = shape
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"it has {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}"
                )
            image.draft(None, (2 * max(height, width),) * 2)
            upright = _upright(image)
            plain = _plain(upright, "L" if channels == 1 else "RGB")
    except ValueError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever they stumble over.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(reason) from error
    pixels = np.asarray(_fitted(plain, (width, height), fit))
    return np.ascontiguousarray(pixels.reshape(height, width, channels).transpose(2, 0, 1))


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # Damaged EXIF data are none; the pixels may be whole.
        orientation = None
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    image.load()
    return image if turn is None else image.transpose(turn)


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """The image in 8 bits a channel, grey or RGB, without transparency."""
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers)
    if image.mode == mode:
        return image
    # Some modes, such as CMYK, become RGB alone.
    return image.convert("RGB").convert(mode)


def _eight_bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return np.rint(values.clip(0, 65535) / 257.0).astype(np.uint8)


def _fitted(image: Image.Image, size: tuple[int, int], fit: Fit) -> Image.Image:
    scales = [wanted / given for wanted, given in zip(size, image.size, strict=True)]
    resample = Image.Resampling.BILINEAR
    if fit == "stretch" or scales[0] == scales[1]:
        return image.resize(size, resample)
    if fit == "crop":
        part = [wanted / max(scales) for wanted in size]
        x, y = ((given - kept) / 2 for given, kept in zip(image.size, part, strict=True))
        right, bottom = min(x + part[0], image.width), min(y + part[1], image.height)
        return image.resize(size, resample, box=(max(x, 0.0), max(y, 0.0), right, bottom))
    inner = [max(1, round(min(scales) * given)) for given in image.size]
    padded = Image.new(image.mode, size)
    left, top = ((wanted - kept) // 2 for wanted, kept in zip(size, inner, strict=True))
    padded.paste(image.resize((inner[0], inner[1]), resample), (left, top))
    return padded
