"""What training sees: no test image's influence, no image twice, nothing drawn from elsewhere."""

import dataclasses
import gzip
import hashlib
import pickle
import pickletools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bclightning.data import CIFAR10, MNIST, SVHN, svhn
from bclightning.data.base import EpochSampler, ImageDataModule, ImageTensors
from bclightning.data.cifar10 import read_batch
from bclightning.data.files import DataFile
from bclightning.seeds import RunSeeds


class Places(ImageDataModule):
    """Images that are their own places in the training split."""

    name = "places"
    class_names = ("only",)

    def __init__(self, count: int) -> None:
        super().__init__("nowhere")
        self.count = count

    def load_splits(self):
        images = torch.arange(self.count).reshape(-1, 1, 1, 1)
        return {"train": ImageTensors(images, torch.zeros(self.count, dtype=torch.int64))}


@settings(deadline=None)
@example(598_388, 10_000)
@example(598_388, 598_387)
@example(50_000, 1)
@given(st.integers(2, 2000), st.integers(1, 2000))
def test_statistics_take_different_images_at_equal_distances_from_end_to_end(count, limit):
    loader = Places(count).statistics_dataloader(limit)
    places = torch.cat([images.flatten() for images, _ in loader])
    assert len(places) == min(count, limit)
    assert places[0] == 0
    if limit > 1:
        steps = places.diff()
        assert places[-1] == count - 1
        assert steps.min() >= 1
        assert steps.max() - steps.min() <= 1


def test_an_order_neither_uses_nor_moves_the_global_generator():
    sampler = EpochSampler(20, RunSeeds(1))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = list(sampler)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert list(sampler) == first


def test_another_mnist_test_set_changes_nothing_in_training_and_validation(mnist_root, monkeypatch):
    before = MNIST(str(mnist_root)).loaded_splits()
    file = MNIST.files[2]
    path = mnist_root / file.name
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:16] + bytes(255 - pixel for pixel in content[16:])))
    other = dataclasses.replace(
        file, md5=hashlib.md5(path.read_bytes()).hexdigest(), size=path.stat().st_size
    )
    monkeypatch.setattr(MNIST, "files", (*MNIST.files[:2], other, MNIST.files[3]))
    after = MNIST(str(mnist_root)).loaded_splits()
    assert torch.equal(after["train"].images, before["train"].images)
    assert torch.equal(after["val"].images, before["val"].images)
    # The test images are the negatives, about the same training mean.
    mean = torch.tensor(
        np.frombuffer(
            gzip.decompress((mnist_root / MNIST.files[0].name).read_bytes()), np.uint8, offset=16
        ).reshape(-1, 1, 28, 28)[:100]
        / 255
    ).mean(0)
    both = after["test"].images + before["test"].images
    torch.testing.assert_close(both, (1 - 2 * mean).float().expand_as(both), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("kind", "root"), [(MNIST, "mnist_root"), (SVHN, "svhn_root")])
def test_no_image_is_in_two_splits_or_twice_in_one(request, kind, root):
    data = kind(str(request.getfixturevalue(root)), batch_size=10)
    data.prepare_data()
    seen = [
        image.numpy().tobytes() for split in data.loaded_splits().values() for image in split.images
    ]
    assert len(set(seen)) == len(seen) == sum(data.split_sizes().values())


def test_svhn_normalizes_a_batch_at_once(svhn_root, monkeypatch):
    data = SVHN(str(svhn_root), batch_size=30, eval_batch_size=16)
    data.prepare_data()
    sizes = []
    for split in data.loaded_splits().values():
        monkeypatch.setattr(
            split,
            "transform",
            lambda images: sizes.append(len(images)) or svhn.PREPROCESSING.apply(images),
        )
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    assert [[len(labels) for _, labels in loader] for loader in loaders] == [
        [30] * 3,
        [16] * 3 + [2],
        [16] * 2 + [8],
    ]
    assert sizes == [30] * 3 + [16] * 3 + [2] + [16] * 2 + [8]


def test_svhn_of_another_split_is_another_cache(svhn_root, tmp_path, monkeypatch):
    before = SVHN(str(svhn_root)).loaded_splits()
    monkeypatch.setattr(SVHN, "validation_counts", (3, 2))
    after = SVHN(str(svhn_root)).loaded_splits()
    fresh = SVHN(str(svhn_root), cache_dir=str(tmp_path / "elsewhere")).loaded_splits()
    assert [len(fresh[name]) for name in ("train", "val", "test")] == [100, 50, 40]
    for name in ("train", "val"):
        assert torch.equal(after[name].images, fresh[name].images)
        assert not torch.equal(after[name].images, before[name].images)


def as_python_2_wrote_it(content: bytes) -> bytes:
    """The same pickle in protocol 2 with Python 2's byte strings, as the publisher's files are."""
    result = bytearray(content)
    strings = {"SHORT_BINBYTES": b"U", "BINBYTES": b"T"}
    for opcode, _, position in pickletools.genops(content):
        if opcode.name in strings:
            result[position : position + 1] = strings[opcode.name]
        assert opcode.proto <= 2 or opcode.name in strings, opcode.name
    assert result[:2] == b"\x80\x03"
    result[1] = 2
    return bytes(result).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def test_cifar10_batches_are_read_as_python_2_and_an_old_numpy_pickled_them(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3072), dtype=np.uint8)
    entries = {
        b"batch_label": b"training batch 1 of 5",
        b"labels": [9, 0, 3, 3, 1, 2],
        b"data": pixels,
        b"filenames": [b"a.png"] * 6,
    }
    content = as_python_2_wrote_it(pickle.dumps(entries, protocol=3))
    assert b"_core" not in content
    (tmp_path / "batch").write_bytes(content)
    file = DataFile("batch", hashlib.md5(content).hexdigest(), len(content))
    images, labels = read_batch(file, tmp_path)
    assert np.array_equal(images.numpy(), pixels.reshape(6, 3, 32, 32))
    assert labels.tolist() == [9, 0, 3, 3, 1, 2]
    assert CIFAR10.class_names[9] == "truck"
