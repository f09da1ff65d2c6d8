"""NumPy's files: found by their names, checked, split, standardized; or one sentence."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from bclightning.data import Arrays
from bclightning.errors import DataError

LABELS = np.arange(40) % 4


def values(*shape: int, dtype: str = "float32", seed: int = 0, count: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(3, 50, (count, *shape)) + 100).clip(0, 255).astype(dtype)


def npz(path: Path, **arrays: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def arrays(root: Path, **options) -> Arrays:
    data = Arrays(str(root), batch_size=4, **options)
    data.prepare_data()
    return data


@pytest.mark.parametrize(
    "dtype", ["uint8", "float32", "float64", "int16", "bool", ">f4", "float16"]
)
@pytest.mark.parametrize("shape", [(6,), (2, 9), (3, 4, 5)])
def test_vectors_signals_and_images_of_every_type(tmp_path, dtype, shape):
    inputs = values(*shape, dtype=dtype)
    data = arrays(npz(tmp_path / "own.npz", images=inputs, labels=LABELS))
    assert (data.name, data.image_shape, data.class_names) == ("own", shape, ("0", "1", "2", "3"))
    assert data.split_sizes() == {"train": 32, "val": 4, "test": 4}
    kept = torch.uint8 if dtype == "uint8" else torch.float32
    assert data.test_pixels().dtype == kept
    images = torch.cat([images for images, _ in data.statistics_dataloader()])
    over = [0, *range(2, images.dim())]
    assert images.dtype == torch.float32
    assert images.mean(over).abs().max() < 1e-4
    deviation = images.std(over, correction=0)
    # A feature that is always the same stays 0.
    assert ((deviation - 1).abs().lt(1e-4) | deviation.eq(0)).all()


def keras(root):
    names = {"x_train": values(3), "y_train": LABELS}
    return npz(root / "a.npz", **names, x_test=values(3, count=8), y_test=LABELS[:8])


def by_split(root):
    for split, count in (("train", 40), ("valid", 8), ("test", 8)):
        npz(root / f"{split}.npz", images=values(3, count=count), labels=LABELS[:count])
    return root


def npy(root):
    for split, count in (("train", 40), ("test", 8)):
        np.save(root / f"{split}_images.npy", values(3, count=count))
        np.save(root / f"{split}_labels.npy", LABELS[:count, None])
    return root


def plain(root):
    np.save(root / "x.npy", np.asfortranarray(values(3)))
    np.save(root / "y.npy", LABELS.astype("uint8"))
    return root


@pytest.mark.parametrize(
    ("write", "sizes", "files"),
    [
        (keras, [36, 4, 8], 1),
        (by_split, [40, 8, 8], 3),
        (npy, [36, 4, 8], 4),
        (plain, [32, 4, 4], 2),
    ],
)
def test_layouts(tmp_path, write, sizes, files):
    data = arrays(write(tmp_path))
    assert list(data.split_sizes().values()) == sizes
    assert len(data.checksums()) == files
    assert data.class_names == ("0", "1", "2", "3")
    assert data.image_shape == (3,)


def test_whole_npy_files_are_mapped_and_not_written_to(tmp_path):
    for split in ("train", "val", "test"):
        np.save(tmp_path / f"{split}_x.npy", values(3, 4, seed=len(split)))
        np.save(tmp_path / f"{split}_y.npy", LABELS)
    before = (tmp_path / "test_x.npy").read_bytes()
    data = arrays(tmp_path)
    data.test_pixels().zero_()
    assert (tmp_path / "test_x.npy").read_bytes() == before
    source = data._sources["train"][0].load()
    assert isinstance(source, np.memmap)


def test_what_is_larger_than_memory_is_arranged_in_a_cache(tmp_path, monkeypatch):
    plain(tmp_path)
    expected = arrays(tmp_path).test_pixels()
    monkeypatch.setattr("bclightning.data.arrays.MAX_BYTES_IN_MEMORY", 10)
    data = arrays(tmp_path, cache_dir=str(tmp_path / "cache"))
    assert torch.equal(data.test_pixels(), expected)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 3


def test_the_split_is_stratified_and_that_of_its_seed(tmp_path):
    path = npz(tmp_path / "a.npz", x=values(2), y=LABELS)
    first = arrays(path, val_fraction=0.25).loaded_splits()
    assert first["val"].labels.bincount().tolist() == [3, 3, 3, 3]
    again = arrays(path, val_fraction=0.25, seed=5).loaded_splits()
    assert torch.equal(first["val"].images, again["val"].images)
    other = arrays(path, val_fraction=0.25, split_seed=5).loaded_splits()
    assert not torch.equal(first["val"].images, other["val"].images)


def test_where_channels_are_and_what_classes_are_called(tmp_path):
    inputs = values(4, 5, 3, dtype="uint8")
    path = npz(tmp_path / "a.npz", x=inputs, y=LABELS, class_names=np.array(list("abcd")))
    with pytest.raises(DataError, match=r"as if its channels came last; give --data\.channel_axis"):
        arrays(path)
    data = arrays(path, channel_axis="last")
    assert (data.image_shape, data.class_names) == ((3, 4, 5), tuple("abcd"))
    assert arrays(path, channel_axis="first").image_shape == (4, 5, 3)
    assert arrays(path, channel_axis="first", class_names=list("wxyz")).class_names == tuple("wxyz")
    grey = npz(tmp_path / "b.npz", x=values(4, 5), y=LABELS)
    assert arrays(grey, channel_axis="none").image_shape == (1, 4, 5)
    with pytest.raises(DataError, match="there are 2 class names, and the labels go from 0 to 3"):
        arrays(path, channel_axis="last", class_names=["a", "b"])


class Boom:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def spoiled(place: float) -> np.ndarray:
    inputs = values(3)
    inputs[7, 1] = place
    return inputs


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"x": values(3)}, "has no train labels: expected arrays images and labels"),
        ({"y": LABELS}, "has no train images"),
        ({"x": values(3), "y": LABELS[:9]}, r"holds 40 images, and .*\[y\] 9 labels"),
        ({"x": np.zeros(40), "y": LABELS}, r"has the shape \(40,\); expected"),
        ({"x": np.zeros((40, 0)), "y": LABELS}, "at least one value"),
        ({"x": values(2, 2, 2, 2), "y": LABELS}, "expected .count, channels, height, width"),
        ({"x": values(3).astype(complex), "y": LABELS}, "values of type complex128"),
        ({"x": values(3).astype(str), "y": LABELS}, "values of type <U"),
        ({"x": np.full((40, 1), Boom(), object), "y": LABELS}, "holds Python objects"),
        ({"x": spoiled(np.nan), "y": LABELS}, "contains NaN or infinity.*first in image 7"),
        ({"x": spoiled(1).astype(float) * 1e39, "y": LABELS}, "beyond float32"),
        ({"x": values(3), "y": LABELS + 0.5}, "the type float64; labels are one integer"),
        ({"x": values(3), "y": np.eye(4)[LABELS]}, r"has the shape \(40, 4\)"),
        ({"x": values(3), "y": LABELS + 1}, "no label is 0; number the classes from 0"),
        ({"x": values(3), "y": LABELS - 1}, "labels from -1 to 2; number the classes from 0"),
        ({"x": values(3), "y": LABELS + 2**40}, "number the classes from 0"),
        ({"x": values(3), "y": 0 * LABELS}, "has one class, and a classifier needs two"),
        ({"x": values(3), "y": np.array([0] * 38 + [1] * 2)}, "class '1' has 2 images, too few"),
    ],
)
def test_each_mistake_has_its_sentence(tmp_path, content, sentence):
    with warnings.catch_warnings(action="ignore"), pytest.raises(DataError, match=sentence):
        arrays(npz(tmp_path / "a.npz", **content))


def test_splits_that_differ(tmp_path):
    def write(**test):
        return npz(tmp_path / "a.npz", x_train=values(3), y_train=LABELS, **test)

    with pytest.raises(
        DataError, match=r"images of test have the shape \(4,\), and those of train"
    ):
        arrays(write(x_test=values(4), y_test=LABELS))
    with pytest.raises(DataError, match="has the label 4, and those of the training images go up"):
        arrays(write(x_test=values(3), y_test=LABELS + 1))
    with pytest.raises(DataError, match="holds pixels"):
        arrays(write(x_test=values(3, dtype="uint8"), y_test=LABELS))
    with pytest.raises(DataError, match="has no test labels"):
        arrays(write(x_test=values(3)))


def test_files_that_are_none(tmp_path):
    with pytest.raises(DataError, match="there is no file or folder"):
        arrays(tmp_path / "gone.npz")
    with pytest.raises(DataError, match=r"holds no \.npz and no \.npy files"):
        arrays(tmp_path)
    (tmp_path / "a.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"is no \.npz file, or damaged"):
        arrays(tmp_path / "a.npz")
    np.save(tmp_path / "b.npy", values(3))
    with pytest.raises(DataError, match="one array without labels"):
        arrays(tmp_path / "b.npy")


@pytest.mark.parametrize("name", ["x.npy", "y.npy"])
@pytest.mark.parametrize("kept", [0, 5, 100, 140])
def test_truncated_files(tmp_path, name, kept):
    plain(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match="cannot be read"):
        arrays(tmp_path)


def test_a_damaged_member(tmp_path):
    path = npz(tmp_path / "a.npz", x=values(300), y=LABELS)
    content = bytearray(path.read_bytes())
    content[5000] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz\[x\] cannot be read: Bad CRC-32"):
        arrays(path)
