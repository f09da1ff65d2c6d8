"""Images as raw pixels, whatever file they come in."""

import numpy as np
import pytest
import torch
from PIL import Image

from bclightning.errors import UserError
from bclightning.inference.images import read_images

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.stack([GREY, GREY + 5, GREY + 9])


def same(pixels: torch.Tensor, expected: np.ndarray) -> bool:
    return np.array_equal(pixels.numpy().reshape(expected.shape), expected)


@pytest.mark.parametrize("ending", ["png", "bmp"])
def test_grey_and_coloured_images(tmp_path, ending):
    grey, colour = tmp_path / f"grey.{ending}", tmp_path / f"colour.{ending}"
    Image.fromarray(GREY).save(grey)
    Image.fromarray(np.ascontiguousarray(COLOUR.transpose(1, 2, 0))).save(colour)
    assert torch.equal(read_images(grey, (1, 3, 4), 255), torch.tensor(GREY[None, None]).float())
    assert torch.equal(
        read_images(grey, (3, 3, 4), 255), torch.tensor(np.stack([GREY] * 3)[None]).float()
    )
    assert torch.equal(read_images(colour, (3, 3, 4), 255), torch.tensor(COLOUR[None]).float())
    luminance = np.tensordot([0.299, 0.587, 0.114], COLOUR.astype(float), 1)
    assert np.abs(read_images(colour, (1, 3, 4), 255).numpy()[0, 0] - luminance).max() <= 1


@pytest.mark.parametrize("dtype", ["uint8", "float64", ">i2"])
@pytest.mark.parametrize("shape", [(3, 4), (1, 3, 4), (1, 1, 3, 4)])
def test_arrays_of_several_shapes_and_types(tmp_path, dtype, shape):
    np.save(tmp_path / "a.npy", GREY.reshape(shape).astype(dtype))
    assert torch.equal(
        read_images(tmp_path / "a.npy", (1, 3, 4), 255), torch.tensor(GREY[None, None]).float()
    )


def test_an_array_may_hold_many(tmp_path):
    np.save(tmp_path / "a.npy", np.stack([COLOUR, COLOUR[::-1]]))
    assert torch.equal(
        read_images(tmp_path / "a.npy", (3, 3, 4), 255)[1], torch.tensor(COLOUR[::-1].copy())
    )


# Of a .npy file, up to the shape; the rest is padded to 128 bytes in all.
HEADER = b"\x93NUMPY\x01\x00\x76\x00{'descr': '|u1', 'fortran_order': False, 'shape': "


class Boom:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", b"no image"),
        ("a.npy", b"no array"),
        ("a.npy", np.array([Boom()], object)),
        ("a.npy", np.array("text")),
        ("a.npy", np.zeros(3)),
        ("a.npy", np.zeros((1, 1, 1, 2, 2))),
        ("a.npy", np.zeros((2, 2), complex)),
        ("a.npy", np.zeros((0, 1, 2, 2))),
        ("a.npy", np.full((2, 2), np.nan)),
        ("a.npy", HEADER + b"(1000000, 1, 1000, 1000), }".ljust(69) + b"\n"),
        ("a.npy", HEADER + b"(2, 2".ljust(69) + b"\n"),
        ("a.npy", b"PK\x03\x04 and more"),
        ("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\nshowpage\n"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, name, content):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(UserError, match="holds no image") as error:
        read_images(path, (1, 2, 2), 255)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", ["GIF", "TIFF", "PPM"])
def test_no_other_format_is_opened_whatever_the_file_is_called(tmp_path, form):
    """Pillow reads these by itself; others, such as EPS, it has read by another program."""
    Image.fromarray(GREY).save(tmp_path / "a.png", format=form)
    with pytest.raises(UserError, match="holds no image: cannot identify"):
        read_images(tmp_path / "a.png", (1, 3, 4), 255)


def test_a_cut_image_and_none_at_all_are_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match="holds no image"):
        read_images(path, (1, 40, 40), 255)
    with pytest.raises(UserError, match="there is no image"):
        read_images(tmp_path / "b.png", (1, 40, 40), 255)


def test_what_would_be_read_wrongly_is_refused(tmp_path):
    """Deep, transparent, bright and faint images, which a network would take for others."""
    path = tmp_path / "a.png"
    Image.fromarray(np.full((2, 2), 4369, np.uint16)).save(path)
    with pytest.raises(UserError, match="more than 8 bits"):
        read_images(path, (1, 2, 2), 255)
    ink = np.zeros((2, 2, 4), np.uint8)
    ink[0, 0, 3] = 255
    Image.fromarray(ink).save(path)
    with pytest.raises(UserError, match="partly transparent"):
        read_images(path, (1, 2, 2), 255)
    ink[..., 3] = 255
    Image.fromarray(ink).save(path)
    assert torch.equal(read_images(path, (1, 2, 2), 255), torch.zeros(1, 1, 2, 2))
    np.save(tmp_path / "a.npy", np.full((2, 2), 200, np.uint8))
    with pytest.raises(UserError, match="from 200 to 200, and those of the data set go from 0 to"):
        read_images(tmp_path / "a.npy", (1, 2, 2), 16)
    np.save(tmp_path / "a.npy", np.full((2, 2), 0.5))
    with pytest.raises(UserError, match="multiply them by 255"):
        read_images(tmp_path / "a.npy", (1, 2, 2), 255)


def test_the_largest_pixel_of_an_image_is_the_data_set_s(tmp_path):
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "a.png")
    assert read_images(tmp_path / "a.png", (1, 1, 2), 16).flatten().tolist() == [0, 16]


def test_an_image_of_another_size_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((3, 5), np.uint8)).save(path)
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(UserError, match="images of 1 x 3 x 5 do not fit a network for 1 x 2 x 2"):
        read_images(path, (1, 2, 2), 255)
