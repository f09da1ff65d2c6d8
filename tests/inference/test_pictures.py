"""Pictures as raw pixels, whatever file they come in."""

import numpy as np
import pytest
import torch
from PIL import Image

from bclightning.errors import UserError
from bclightning.inference.pictures import read_pictures

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
COLOUR = np.stack([GREY, GREY + 5, GREY + 9])


@pytest.mark.parametrize("ending", ["png", "bmp"])
def test_grey_and_coloured_pictures(tmp_path, ending):
    grey, colour = tmp_path / f"grey.{ending}", tmp_path / f"colour.{ending}"
    Image.fromarray(GREY).save(grey)
    Image.fromarray(np.ascontiguousarray(COLOUR.transpose(1, 2, 0))).save(colour)
    assert torch.equal(read_pictures(grey, 1), torch.tensor(GREY[None, None]).float())
    assert torch.equal(read_pictures(grey, 3), torch.tensor(np.stack([GREY] * 3)[None]).float())
    assert torch.equal(read_pictures(colour, 3), torch.tensor(COLOUR[None]).float())
    luminance = np.tensordot([0.299, 0.587, 0.114], COLOUR.astype(float), 1)
    assert np.abs(read_pictures(colour, 1).numpy()[0, 0] - luminance).max() <= 1


@pytest.mark.parametrize("dtype", ["uint8", "float64", ">i2"])
@pytest.mark.parametrize("shape", [(3, 4), (1, 3, 4), (1, 1, 3, 4)])
def test_arrays_of_several_shapes_and_types(tmp_path, dtype, shape):
    np.save(tmp_path / "a.npy", GREY.reshape(shape).astype(dtype))
    assert torch.equal(read_pictures(tmp_path / "a.npy", 1), torch.tensor(GREY[None, None]).float())


def test_an_array_may_hold_many(tmp_path):
    np.save(tmp_path / "a.npy", np.stack([COLOUR, COLOUR[::-1]]))
    assert torch.equal(read_pictures(tmp_path / "a.npy", 3)[1], torch.tensor(COLOUR[::-1].copy()))


class Boom:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", b"no picture"),
        ("a.npy", b"no array"),
        ("a.npy", np.array([Boom()], object)),
        ("a.npy", np.array("text")),
        ("a.npy", np.zeros(3)),
        ("a.npy", np.zeros((1, 1, 1, 2, 2))),
        ("a.npy", np.zeros((2, 2), complex)),
        ("a.npy", np.zeros((0, 1, 2, 2))),
        ("a.npy", np.full((2, 2), np.nan)),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path, name, content):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(UserError, match="holds no picture") as error:
        read_pictures(path, 1)
    assert "\n" not in str(error.value)


def test_a_cut_picture_and_none_at_all_are_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match="holds no picture"):
        read_pictures(path, 1)
    with pytest.raises(UserError, match="there is no picture"):
        read_pictures(tmp_path / "b.png", 1)
