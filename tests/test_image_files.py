"""Image files of every size and mode become pixels of one shape, or a reason why not."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bclightning.image_files import MAX_PIXELS, decode, read_bounded, without_warnings


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


sides = st.integers(1, 40)
MODES = {"PNG": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"], "BMP": ["1", "L", "P", "RGB"]}
MODES |= {"JPEG": ["L", "RGB", "CMYK"], "WEBP": ["RGB", "RGBA"]}


@settings(max_examples=80)
@given(
    sides,
    sides,
    sides,
    sides,
    st.sampled_from([1, 3]),
    st.sampled_from(["crop", "stretch", "pad"]),
    st.sampled_from([(kind, mode) for kind, modes in MODES.items() for mode in modes]),
)
def test_every_size_mode_and_fit_has_the_shape(height, width, rows, columns, channels, fit, form):
    kind, mode = form
    colours = Image.fromarray(noise(height, width))
    image = colours.convert("L").convert(mode) if mode == "I;16" else colours.convert(mode)
    content = encoded(image, kind)
    with without_warnings():
        pixels = decode(content, (channels, rows, columns), fit)
    assert (pixels.shape, pixels.dtype) == ((channels, rows, columns), np.uint8)
    assert pixels.flags.c_contiguous


@given(sides, sides, st.sampled_from(["crop", "stretch", "pad"]))
def test_an_image_of_the_size_keeps_its_pixels(height, width, fit):
    colours = noise(height, width)
    pixels = decode(encoded(Image.fromarray(colours)), (3, height, width), fit)
    assert np.array_equal(pixels, colours.transpose(2, 0, 1))


def halves(size: tuple[int, int]) -> bytes:
    """Black on the left, white on the right."""
    image = Image.new("L", size)
    image.paste(255, (size[0] // 2, 0, *size))
    return encoded(image)


def test_what_each_fit_does_to_another_aspect_ratio():
    wide = halves((80, 20))
    crop, stretch, pad = (decode(wide, (1, 8, 8), fit)[0] for fit in ("crop", "stretch", "pad"))
    # Cropped: the middle fifth, half of it black. Stretched: all. Padded: two rows between bars.
    assert (crop[:, :3] == 0).all()
    assert (crop[:, 5:] == 255).all()
    assert (stretch[:, :3] == 0).all()
    assert (stretch[:, 5:] == 255).all()
    assert (pad[:3] == 0).all()
    assert (pad[5:] == 0).all()
    assert (pad[3:5, 5:] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_images_are_upright(orientation, kind):
    # One bright corner, which viewers show at the upper left for each orientation.
    upright = np.zeros((8, 8), np.uint8)
    upright[:4, :4] = 255
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(turned)).convert("RGB")
    lossless = {"lossless": True} if kind == "WEBP" else {}
    pixels = decode(encoded(image, kind, exif=exif, **lossless), (1, 8, 8), "crop")[0]
    assert np.array_equal(pixels > 127, upright > 127)


def test_damaged_exif_data_are_none():
    content = encoded(Image.fromarray(noise(4, 4)), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(decode(content, (3, 4, 4), "crop"), noise(4, 4).transpose(2, 0, 1))


def test_transparent_parts_are_white_and_16_bits_become_8():
    clear = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    assert (decode(encoded(clear), (3, 2, 2), "crop") == 255).all()
    palette = Image.new("P", (2, 2), 0)
    assert (decode(encoded(palette, transparency=0), (3, 2, 2), "crop") == 255).all()
    deep = Image.fromarray(np.array([[0, 257 * 100], [65535, 257 * 7]], np.uint16))
    assert decode(encoded(deep), (1, 2, 2), "crop").tolist() == [[[0, 100], [255, 7]]]


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has a large image."""
    content = bytearray(encoded(Image.new("1", (8, 8))))
    content[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no image",
        encoded(Image.fromarray(noise(30, 30)))[:-200],
        encoded(Image.fromarray(noise(30, 30)), "JPEG")[:300],
        encoded(Image.new("RGB", (4, 4)), "GIF"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 5 5\n",
        bomb(10_000, MAX_PIXELS // 10_000 + 1),
        bomb(60_000, 60_000),
    ],
    ids=["empty", "text", "short-png", "short-jpeg", "gif", "eps", "large", "bomb"],
)
def test_what_is_no_image_has_a_reason(content):
    with without_warnings(), pytest.raises(ValueError, match=r"\w"):
        decode(content, (3, 8, 8), "crop")


@given(st.data())
@settings(max_examples=60)
def test_damaged_files_end_in_pixels_or_a_reason(data):
    content = bytearray(encoded(Image.fromarray(noise(9, 9)), data.draw(st.sampled_from([*MODES]))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with without_warnings():
        try:
            pixels = decode(bytes(content), (3, 5, 5), "crop")
        except ValueError:
            return
    assert pixels.shape == (3, 5, 5)


def test_only_regular_files_of_a_photos_size_are_read(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="not a regular file"):
        read_bounded(tmp_path)
    (tmp_path / "a.png").write_bytes(bytes(100))
    monkeypatch.setattr("bclightning.image_files.MAX_FILE_BYTES", 99)
    with pytest.raises(ValueError, match="100 bytes, more than any photo"):
        read_bounded(tmp_path / "a.png")
