"""A folder of images: found, split, resized, standardized; or one sentence."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bclightning.data import ImageFolder, standardized
from bclightning.errors import DataError

COLOURS = {"fire": (200, 60, 20), "grass": (30, 180, 40), "sky": (40, 90, 220)}
KINDS = ("png", "jpg", "bmp", "webp")


def fill(folder: Path, count: int = 8, seed: int = 0, classes=COLOURS) -> Path:
    """Images of several kinds and sizes, coloured by class."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            height, width = rng.integers(8, 30, 2)
            spots = rng.integers(-20, 20, (height, width, 3))
            pixels = (np.array(COLOURS[name]) + spots).astype(np.uint8)
            path = folder / name / f"{number}.{KINDS[number % len(KINDS)]}"
            Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def flat(tmp_path):
    return fill(tmp_path / "flat")


def folder_data(root: Path, **options) -> ImageFolder:
    return ImageFolder(str(root), size=8, batch_size=4, **options)


def names_of(data: ImageFolder) -> list[str]:
    return [line.split("\t")[2] for line in data.manifest().splitlines()]


def test_one_folder_is_split_and_standardized(flat):
    data = folder_data(flat, val_fraction=0.25, test_fraction=0.25)
    data.prepare_data()
    data.setup("fit")
    assert data.split_sizes() == {"train": 12, "val": 6, "test": 6}
    assert (data.name, data.class_names, data.image_shape) == ("flat", tuple(COLOURS), (3, 8, 8))
    for split in data.loaded_splits().values():
        assert split.images.dtype == torch.uint8
        assert split.labels.bincount().tolist() == [len(split) // 3] * 3
    images = torch.cat([images for images, _ in data.statistics_dataloader()])
    assert images.mean((0, 2, 3)).abs().max() < 1e-5
    assert (images.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    raw = data.preprocessing().apply(data.test_pixels())
    assert torch.equal(raw, next(iter(data.test_dataloader()))[0])


@pytest.mark.parametrize("beside", [("val", "test"), ("valid",), ("validation", "testing"), ()])
def test_torchvisions_layout_and_what_is_missing_of_it(tmp_path, beside):
    fill(tmp_path / "train", 8)
    for seed, split in enumerate(beside, 1):
        fill(tmp_path / split, 3, seed)
    sizes = folder_data(tmp_path).split_sizes()
    own = {split[:3].replace("tes", "test"): 9 for split in beside}
    taken = 3 * (2 - len(beside))
    assert sizes == {"train": 24 - taken, "val": 3, "test": 3} | own


def test_the_split_is_that_of_names_and_split_seed(flat, tmp_path):
    first = folder_data(flat).test_names()
    assert folder_data(flat, seed=7).test_names() == first
    assert folder_data(flat, split_seed=1).test_names() != first
    # Written in another order, elsewhere.
    for path in sorted(flat.rglob("*.*"), reverse=True):
        copy = tmp_path / "copy" / path.relative_to(flat)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    copy = folder_data(tmp_path / "copy")
    assert copy.test_names() == first
    assert copy.checksums() == folder_data(flat).checksums()


def test_the_manifest_names_every_image_and_changes_with_it(flat):
    before = folder_data(flat)
    assert names_of(before) == sorted(p.relative_to(flat).as_posix() for p in flat.rglob("*.*"))
    Image.new("RGB", (9, 9)).save(flat / "sky" / "0.png")
    assert folder_data(flat).checksums() != before.checksums()


def test_what_is_no_image_is_left_out_and_nested_folders_are_not(flat, caplog):
    (flat / "sky" / "far").mkdir()
    shutil.copy(flat / "sky" / "0.png", flat / "sky" / "far" / "UPPER.PNG")
    for name in ("notes.txt", "._1.png", ".DS_Store"):
        (flat / "sky" / name).write_bytes(b"x")
    (flat / "__MACOSX").mkdir()
    (flat / "readme.md").write_text("x")
    data = folder_data(flat)
    assert len(names_of(data)) == 25
    assert "sky/far/UPPER.PNG" in names_of(data)
    assert "since they are no PNG, JPEG, BMP or WebP: 1 (.txt)" in caplog.text


def test_a_copy_of_a_training_image_is_told(tmp_path, caplog):
    for split in ("train", "val", "test"):
        fill(tmp_path / split, 3, seed=len(split))
    shutil.copy(tmp_path / "train/sky/0.png", tmp_path / "test/sky/copied.png")
    folder_data(tmp_path).split_sizes()
    assert "1 of 10 test images are copies of training images, such as test/sky/copied.png" in (
        caplog.text
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [5, [4, 6]])
def test_sizes_and_channels(flat, channels, size):
    data = ImageFolder(str(flat), size, channels=channels, batch_size=4)
    height, width = (5, 5) if size == 5 else size
    assert data.image_shape == (channels, height, width)
    assert next(iter(data.train_dataloader()))[0].shape == (4, channels, height, width)


def test_the_cache_has_the_same_pixels_and_is_checked(flat, tmp_path, monkeypatch):
    kept = folder_data(flat, cache_dir=str(tmp_path / "cache"))
    assert torch.equal(kept.test_pixels(), folder_data(flat).test_pixels())
    monkeypatch.setattr(ImageFolder, "_decoded", lambda *_: pytest.fail("decoded again"))
    again = folder_data(flat, cache_dir=str(tmp_path / "cache"))
    assert torch.equal(again.test_pixels(), kept.test_pixels())
    monkeypatch.undo()
    (file,) = (tmp_path / "cache").glob("*.npy")
    content = bytearray(file.read_bytes())
    content[-40] ^= 255
    file.write_bytes(content)
    mended = folder_data(flat, cache_dir=str(tmp_path / "cache"))
    assert torch.equal(mended.test_pixels(), folder_data(flat).test_pixels())


def test_images_larger_than_memory_are_mapped_beside_the_images(flat, monkeypatch):
    monkeypatch.setattr("bclightning.data.image_folder.MAX_BYTES_IN_MEMORY", 1000)
    data = folder_data(flat)
    data.prepare_data()
    assert list((flat / ".bclightning-cache").glob("flat-*.npy"))
    assert folder_data(flat).class_names == tuple(COLOURS)


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def test_an_unreadable_image_is_named_or_left_out(flat, caplog):
    damage(flat / "grass" / "0.png")
    os.symlink("nowhere", flat / "grass" / "gone.png")
    with pytest.raises(DataError, match=r"gone\.png cannot be read: No such file"):
        folder_data(flat).prepare_data()
    (flat / "grass" / "gone.png").unlink()
    with pytest.raises(DataError, match=r"grass/0\.png cannot be read: .*--data\.skip_unreadable"):
        folder_data(flat).prepare_data()
    os.symlink("nowhere", flat / "grass" / "gone.png")
    data = folder_data(flat, skip_unreadable=True)
    data.prepare_data()
    assert "2 of 25 images cannot be read and are left out, such as grass/0.png" in caplog.text
    assert len(names_of(data)) == sum(data.split_sizes().values()) == 23
    for path in (flat / "grass").iterdir():
        if path.exists():
            damage(path)
    with pytest.raises(DataError, match="no image of the class 'grass' in train can be read"):
        folder_data(flat, skip_unreadable=True).prepare_data()


def make_empty(root):
    (root / "water").mkdir()


def make_loop(root):
    os.symlink(root / "sky", root / "sky" / "again", target_is_directory=True)


def make_pipe(root):
    os.mkfifo(root / "sky" / "pipe.png")


def keep_one(root):
    for name in ("fire", "grass"):
        shutil.rmtree(root / name)


def keep_none(root):
    for name in COLOURS:
        shutil.rmtree(root / name)
    Image.new("L", (3, 3)).save(root / "loose.png")


def add_split(root, other: str) -> None:
    fill(root / "train", 4)
    fill(root / "val", 3, classes=["fire", "sky"] if other == "less" else COLOURS)
    if other == "more":
        (root / "val" / "water").mkdir()
    for name in COLOURS:
        shutil.rmtree(root / name)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (shutil.rmtree, r"flat does not exist; name one with --data\.root"),
        (make_empty, r"the class 'water' in .*flat has no images"),
        (make_loop, r"the link .*sky/again leads to a folder that it lies in"),
        (make_pipe, r"pipe\.png is not a regular file"),
        (keep_one, r"holds one class folder, 'sky'"),
        (keep_none, r"holds no class folders: expected ROOT/train/CLASS/IMAGE"),
        (lambda root: add_split(root, "less"), r"class 'grass' is in .*train and not in .*val"),
        (lambda root: add_split(root, "more"), r"class 'water' is in .*val and not in .*train"),
    ],
)
def test_each_mistake_has_its_sentence(flat, change, sentence):
    change(flat)
    with pytest.raises(DataError, match=sentence):
        folder_data(flat).prepare_data()


def test_a_class_may_be_called_train_and_two_names_of_a_split_are_refused(tmp_path):
    fill(tmp_path / "a", 4)
    (tmp_path / "a" / "sky").rename(tmp_path / "a" / "train")
    assert folder_data(tmp_path / "a").class_names == ("fire", "grass", "train")
    for split in ("train", "val", "valid"):
        fill(tmp_path / "b" / split, 3)
    with pytest.raises(DataError, match="has val and valid, two folders of one split"):
        folder_data(tmp_path / "b").split_sizes()


@pytest.mark.parametrize(
    "wrong", [{"size": 0}, {"size": [3]}, {"size": 10**4}, {"channels": 2}, {"val_fraction": 1.0}]
)
def test_options_out_of_range(wrong):
    with pytest.raises(ValueError, match=r"must be|choose less"):
        ImageFolder("nowhere", **wrong)


def test_statistics_are_numpys_and_constant_channels_stay_finite():
    values = torch.randint(0, 256, (50, 3, 4, 4), dtype=torch.uint8)
    values[:, 1] = 7
    mean, deviation = standardized.channel_statistics(values, 255.0)
    expected = values.numpy().astype(float) / 255
    assert np.allclose(mean.flatten(), expected.mean((0, 2, 3)), atol=1e-6)
    assert np.allclose(deviation.flatten()[[0, 2]], expected.std((0, 2, 3))[[0, 2]], atol=1e-6)
    assert deviation.flatten()[1] == 1
