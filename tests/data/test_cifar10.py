"""CIFAR-10 from small files in the real format, and from the real files."""

import hashlib
import os
import pickle

import pytest
import torch

from bclightning.data import CIFAR10, cifar10
from bclightning.data.cifar10 import read_batch
from bclightning.data.files import DataFile
from bclightning.errors import DataError
from bclightning.functional.whitening import ZCA, global_contrast_normalize

EYE = torch.eye(3072)


def test_cifar10_is_whitened_by_the_training_split_alone(cifar10_root, monkeypatch):
    # As little as depends on the images: decomposing 3072 x 3072 numbers takes seconds.
    centred = classmethod(lambda cls, images, bias: cls(images.flatten(1).mean(0), bias * EYE))
    monkeypatch.setattr(ZCA, "fit", centred)
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
    identity = ZCA(torch.zeros(3072), EYE)
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
    content = pickle.dumps({b"data": Malicious(), b"labels": []}, protocol=3)
    (folder / "batch").write_bytes(content)
    file = DataFile("batch", hashlib.md5(content).hexdigest(), len(content))
    with pytest.raises(DataError, match=r"(posix|nt)\.system is not allowed"):
        read_batch(file, folder)
    assert not (folder / "executed").exists()


def test_a_damaged_pickle_is_refused_before_it_is_parsed(cifar10_root, monkeypatch):
    path = cifar10_root / CIFAR10.files[0].name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(cifar10, "_BatchUnpickler", lambda *_, **__: pytest.fail("parsed"))
    with pytest.raises(DataError, match="does not match its published MD5"):
        read_batch(CIFAR10.files[0], cifar10_root)


@pytest.mark.data
@pytest.mark.skipif("BCL_DATA" not in os.environ, reason="BCL_DATA names no data folder")
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
