"""MNIST, CIFAR-10 and SVHN from small files in the real formats, and from the real files."""

import gzip
import os
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bclightning.data import CIFAR10, MNIST, SVHN, cifar10
from bclightning.data.cifar10 import read_batch
from bclightning.data.files import DataFile
from bclightning.data.mnist import read_idx
from bclightning.data.svhn import PREPROCESSING, last_of_each_class, read_mat
from bclightning.errors import DataError
from bclightning.functional.whitening import ZCA, global_contrast_normalize


def raw_mnist(root, name: str) -> np.ndarray:
    with gzip.open(root / "MNIST" / "raw" / name) as file:
        return np.frombuffer(file.read(), np.uint8)


def test_mnist_splits_are_the_papers_and_centred_with_the_training_mean(mnist_root):
    data = MNIST(str(mnist_root))
    data.prepare_data()
    assert data.split_sizes() == {"train": 100, "val": 30, "test": 40}
    pixels = raw_mnist(mnist_root, "train-images-idx3-ubyte.gz")[16:].reshape(130, 1, 28, 28) / 255
    mean = pixels[:100].mean(0)
    splits = data.loaded_splits()
    np.testing.assert_allclose(splits["train"].images, pixels[:100] - mean, atol=1e-6)
    np.testing.assert_allclose(splits["val"].images, pixels[100:] - mean, atol=1e-6)
    test = raw_mnist(mnist_root, "t10k-images-idx3-ubyte.gz")[16:].reshape(40, 1, 28, 28) / 255
    np.testing.assert_allclose(splits["test"].images, test - mean, atol=1e-6)
    assert splits["val"].labels.tolist() == [i % 10 for i in range(100, 130)]


@settings(max_examples=30, deadline=None)
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=3), cut=st.integers(0, 200))
def test_idx_files_round_trip_and_truncations_are_refused(tmp_path_factory, shape, cut):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    header = np.array([0x800 + array.ndim, *shape], ">u4").tobytes()
    path = tmp_path_factory.mktemp("idx") / "file.gz"
    path.write_bytes(gzip.compress(header + array.tobytes()))
    assert np.array_equal(read_idx(path).numpy(), array)
    content = (header + array.tobytes())[:cut]
    if len(content) < len(header) + array.size:
        path.write_bytes(gzip.compress(content))
        with pytest.raises(DataError, match="IDX file"):
            read_idx(path)


def test_what_is_not_gzipped_is_refused(tmp_path):
    (tmp_path / "file.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match="not a gzipped IDX file"):
        read_idx(tmp_path / "file.gz")


def test_cifar10_is_whitened_by_the_training_split_alone(cifar10_root):
    data = CIFAR10(str(cifar10_root))
    data.prepare_data()
    assert data.split_sizes() == {"train": 80, "val": 20, "test": 40}
    parts = [read_batch(file, cifar10_root) for file in CIFAR10.files]
    pixels = torch.cat([pixels for pixels, _ in parts]).float()
    images = global_contrast_normalize(pixels, 55.0)
    expected = ZCA.fit(images[:80], 0.1).apply(images)
    splits = data.loaded_splits()
    ours = torch.cat([splits[split].images for split in ("train", "val", "test")])
    assert torch.allclose(ours, expected, atol=1e-4)
    assert torch.equal(splits["test"].labels, parts[-1][1])


@pytest.fixture
def quick_zca(monkeypatch):
    """No decomposition of 3072 x 3072 numbers where whitening is not what is tested."""
    identity = ZCA(torch.zeros(3072), torch.eye(3072))
    monkeypatch.setattr(ZCA, "fit", lambda *_: identity)


def test_cifar10_is_found_in_the_cache(cifar10_root, quick_zca, monkeypatch):
    CIFAR10(str(cifar10_root)).prepare_data()
    monkeypatch.setattr(ZCA, "fit", lambda *_: pytest.fail("whitened again"))
    CIFAR10(str(cifar10_root)).prepare_data()


def test_cifar10_comes_out_of_its_archive_and_nothing_else_does(cifar10_archive, quick_zca):
    data = CIFAR10(str(cifar10_archive))
    data.prepare_data()
    assert data.split_sizes()["train"] == 80
    assert not (cifar10_archive.parent / "evil").exists()
    batches = cifar10_archive / "cifar-10-batches-py"
    assert sorted(path.name for path in batches.iterdir()) == sorted(
        file.name.rpartition("/")[2] for file in CIFAR10.files
    )


def test_an_archive_that_lacks_a_file_is_refused(cifar10_archive, monkeypatch):
    more = DataFile("cifar-10-batches-py/data_batch_9", "", 1)
    monkeypatch.setattr(CIFAR10, "files", (*CIFAR10.files, more))
    with pytest.raises(DataError, match="does not contain cifar-10-batches-py/data_batch_9"):
        CIFAR10(str(cifar10_archive)).prepare_data()


class Malicious:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_a_pickle_that_names_anything_else_is_not_executed(folder):
    import hashlib

    content = pickle.dumps({b"data": Malicious(), b"labels": []}, protocol=3)
    (folder / "batch").write_bytes(content)
    file = DataFile("batch", hashlib.md5(content).hexdigest(), len(content))
    with pytest.raises(DataError, match=r"(posix|nt)\.system has no place in it"):
        read_batch(file, folder)
    assert not (folder / "executed").exists()


def test_a_damaged_pickle_is_refused_before_it_is_parsed(cifar10_root, monkeypatch):
    path = cifar10_root / CIFAR10.files[0].name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(cifar10, "_BatchUnpickler", lambda *_, **__: pytest.fail("parsed"))
    with pytest.raises(DataError, match="does not match its published MD5"):
        read_batch(CIFAR10.files[0], cifar10_root)


def test_svhn_splits_are_the_papers(svhn_root):
    data = SVHN(str(svhn_root))
    data.prepare_data()
    assert data.split_sizes() == {"train": 100, "val": 50, "test": 40}
    splits = data.loaded_splits()
    assert splits["val"].labels.bincount().tolist() == [5] * 10
    # File order within each split, and every image somewhere: 40 of train's 60, 60 of extra's 90.
    assert splits["train"].labels.tolist() == [i % 10 for i in range(40)] + [
        i % 10 for i in range(60)
    ]
    files = [read_mat(svhn_root / file.name) for file in SVHN.files]
    stored = torch.cat([splits[split].images for split in ("train", "val", "test")]).numpy()
    expected = np.concatenate(
        [files[0][0][:40], files[1][0][:60], files[0][0][40:], files[1][0][60:], files[2][0]]
    )
    assert np.array_equal(stored, expected)
    assert splits["test"].labels.tolist() == [i % 10 for i in range(40)]


def test_svhn_batches_are_normalized_as_they_are_used(svhn_root):
    data = SVHN(str(svhn_root), batch_size=10)
    data.prepare_data()
    images, _ = next(iter(data.val_dataloader()))
    raw = data.loaded_splits()["val"].images
    assert raw.dtype == torch.uint8
    assert torch.equal(images, PREPROCESSING.apply(raw))
    assert all(images[:, channel].std() > 0.1 for channel in range(3))


def test_matlabs_axes_and_its_label_ten_are_understood(svhn_root):
    images, labels = read_mat(svhn_root / "test_32x32.mat")
    assert images.shape == (40, 3, 32, 32)
    # The fixture's bright rows stand where the class says, for the digit 0 too.
    for image, label in zip(images[:20], labels[:20], strict=True):
        rows = image.mean((0, 2))
        assert rows.argmax() in range(2 * label, 2 * label + 3)


@pytest.mark.parametrize("content", [b"", b"MATLAB", b"\x00" * 500])
def test_what_is_no_matlab_file_is_refused(tmp_path, content):
    (tmp_path / "x.mat").write_bytes(content)
    with pytest.raises(DataError, match="not a file of SVHN's format 2"):
        read_mat(tmp_path / "x.mat")


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(0, 3))
def test_the_last_of_each_class_are_held_out(labels, count):
    array = np.array(labels, dtype=np.int64)
    if any(labels.count(c) < count for c in range(3)):
        with pytest.raises(DataError, match="must validate"):
            last_of_each_class(array, count, 3)
        return
    chosen = last_of_each_class(array, count, 3)
    for c in range(3):
        places = [i for i, label in enumerate(labels) if label == c]
        assert [i for i in places if chosen[i]] == places[len(places) - count :]


real = pytest.mark.skipif("BCL_DATA" not in os.environ, reason="BCL_DATA names no data folder")


@pytest.mark.data
@real
def test_the_real_mnist():
    data = MNIST()
    data.prepare_data()
    assert data.split_sizes() == {"train": 50_000, "val": 10_000, "test": 10_000}
    counts = data.loaded_splits()["test"].labels.bincount().tolist()
    assert counts == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.data
@real
def test_the_real_cifar10(tmp_path):
    data = CIFAR10(cache_dir=str(tmp_path))
    data.prepare_data()
    assert data.split_sizes() == {"train": 45_000, "val": 5_000, "test": 10_000}
    splits = data.loaded_splits()
    assert splits["test"].labels.bincount().tolist() == [1000] * 10
    train = splits["train"].images.flatten(1)
    assert train.mean(0).abs().max() < 1e-3
    # Whitened: a direction of variance v has v / (v + bias) after it, so none has more than one.
    covariance = train.T @ train / len(train)
    values = torch.linalg.eigvalsh(covariance)
    assert 0.99 < values[-1] < 1.001
    assert values[0] > 0
    raw, _ = read_batch(CIFAR10.files[0], data.root)
    assert raw.shape == (10_000, 3, 32, 32)
