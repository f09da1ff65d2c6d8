"""MNIST from small files in the real format, and from the real files."""

import dataclasses
import gzip
import hashlib
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bclightning.data import MNIST
from bclightning.data.mnist import read_idx
from bclightning.errors import DataError


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


def test_every_truncation_of_the_gzipped_file_itself_is_refused(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    header = np.array([0x803, *array.shape], ">u4").tobytes()
    whole = gzip.compress(header + array.tobytes())
    path = tmp_path / "file.gz"
    path.write_bytes(whole)
    assert np.array_equal(read_idx(path).numpy(), array)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="IDX file"):
            read_idx(path)


def test_an_idx_file_of_another_type_or_with_more_than_it_says_is_refused(tmp_path):
    path = tmp_path / "file.gz"
    for content in (
        b"\0\0\x09\x01\0\0\0\x01x",
        b"\x01\0\x08\x01\0\0\0\x01x",
        b"\0\0\x08\x01\0\0\0\x01xy",
    ):
        path.write_bytes(gzip.compress(content))
        with pytest.raises(DataError, match="not a complete IDX file"):
            read_idx(path)


def test_unzipped_files_alone_are_used(mnist_root, monkeypatch):
    zipped = MNIST(str(mnist_root))
    zipped.prepare_data()
    files = []
    for file in MNIST.files:
        packed = mnist_root / file.name
        content = gzip.decompress(packed.read_bytes())
        packed.with_suffix("").write_bytes(content)
        packed.unlink()
        unpacked = dataclasses.replace(
            file.unpacked, md5=hashlib.md5(content).hexdigest(), size=len(content)
        )
        files.append(dataclasses.replace(file, unpacked=unpacked, urls=()))
    monkeypatch.setattr(MNIST, "files", tuple(files))
    data = MNIST(str(mnist_root))
    data.prepare_data()
    for name, split in data.loaded_splits().items():
        assert torch.equal(split.images, zipped.loaded_splits()[name].images)
        assert torch.equal(split.labels, zipped.loaded_splits()[name].labels)
    # The data set is the same one, whichever form it is in.
    assert data.checksums() == zipped.checksums()


def test_an_unzipped_idx_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"\0\0")
    with pytest.raises(DataError, match="file is not an IDX file"):
        read_idx(tmp_path / "file")


@pytest.mark.data
@pytest.mark.skipif("BCL_DATA" not in os.environ, reason="BCL_DATA names no data folder")
def test_the_real_mnist():
    data = MNIST()
    data.prepare_data()
    assert data.split_sizes() == {"train": 50_000, "val": 10_000, "test": 10_000}
    counts = data.loaded_splits()["test"].labels.bincount().tolist()
    assert counts == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.data
@pytest.mark.skipif("BCL_DATA" not in os.environ, reason="BCL_DATA names no data folder")
def test_the_checksums_of_the_unzipped_files_are_those_of_the_zipped_ones_content():
    for file in MNIST.files:
        content = gzip.decompress((MNIST().root / file.name).read_bytes())
        assert file.unpacked.md5 == hashlib.md5(content).hexdigest()
        assert file.unpacked.size == len(content)
        assert f"{file.unpacked.name}.gz" == file.name
