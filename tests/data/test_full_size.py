"""The largest data set at its real size, and the spectrum of the real whitened images."""

import dataclasses
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from bclightning.data import CIFAR10, SVHN
from bclightning.data.cifar10 import CONTRAST_SCALE, ZCA_BIAS, read_batch
from bclightning.functional.whitening import global_contrast_normalize

GIBIBYTE = 2**30
BATCHES = 300


def labels_of(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 10, SVHN.counts[index])


def write_files(root: Path) -> None:
    """SVHN's three files; an image is black but for its place in the file, in three bytes."""
    for index, file in enumerate(SVHN.files):
        labels = labels_of(index)
        pixels = np.zeros((32, 32, 3, len(labels)), np.uint8, order="F")
        for byte in range(3):
            pixels[0, 0, byte] = np.arange(len(labels)) >> (8 * byte) & 255
        matlab = {"X": pixels, "y": np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)}
        scipy.io.savemat(root / file.name, matlab, do_compression=True)


def place(images: torch.Tensor) -> np.ndarray:
    return (images[:, :, 0, 0].long() << torch.tensor([0, 8, 16])).sum(1).numpy()


def prepare_and_iterate(root: Path) -> None:
    """What a run does with the data; what it came to goes to standard output."""
    files = []
    for file in SVHN.files:
        with (root / file.name).open("rb") as content:
            md5 = hashlib.file_digest(content, "md5").hexdigest()
        size = (root / file.name).stat().st_size
        files.append(dataclasses.replace(file, md5=md5, size=size))
    SVHN.files = tuple(files)
    started = time.monotonic()
    data = SVHN(str(root))
    data.prepare_data()
    prepared = time.monotonic() - started
    data.setup("fit")
    finite, batches = True, 0
    for (images, labels), _ in zip(data.train_dataloader(), range(BATCHES), strict=False):
        finite = finite and bool(images.isfinite().all()) and images.shape == (50, 3, 32, 32)
        batches += len(labels) == 50
    evaluated = sum(len(labels) for _, labels in data.test_dataloader())
    splits = data.loaded_splits()
    for name, split in splits.items():
        np.savez(root / name, places=place(split.images), labels=split.labels.numpy())
    report = {
        "sizes": data.split_sizes(),
        "finite": finite,
        "batches": batches,
        "evaluated": evaluated,
        "prepared_s": round(prepared, 1),
        "all_s": round(time.monotonic() - started, 1),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(report))


def alone(job: str, root: Path) -> str:
    """Run a job of this file in a process of its own, whose memory is its own too."""
    run = subprocess.run(
        [sys.executable, __file__, job, str(root)], capture_output=True, text=True, timeout=1200
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture
def big_root(tmp_path):
    root = tmp_path / "svhn"
    root.mkdir()
    yield root
    shutil.rmtree(root)


def held_out(labels: np.ndarray, count: int) -> np.ndarray:
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[-count:] for c in range(10)]))


@pytest.mark.slow
def test_svhn_at_its_real_size_is_prepared_and_trained_on_in_six_gibibytes(big_root):
    alone("write", big_root)
    report = json.loads(alone("use", big_root).splitlines()[-1])
    print(report)
    assert report["sizes"] == {"train": 598_388, "val": 6_000, "test": 26_032}
    assert report["batches"] == BATCHES
    assert report["finite"]
    assert report["evaluated"] == 26_032
    assert report["peak"] < 6 * GIBIBYTE, f"{report['peak'] / GIBIBYTE:.2f} GiB"
    # Each image is where the splits' description puts it.
    train, extra, test = (labels_of(index) for index in range(3))
    chosen = [held_out(train, 400), held_out(extra, 200)]
    rest = [
        np.delete(np.arange(len(train)), chosen[0]),
        np.delete(np.arange(len(extra)), chosen[1]),
    ]
    expected = {
        "train": (np.concatenate(rest), np.concatenate([train[rest[0]], extra[rest[1]]])),
        "val": (np.concatenate(chosen), np.concatenate([train[chosen[0]], extra[chosen[1]]])),
        "test": (np.arange(len(test)), test),
    }
    for name, (places, labels) in expected.items():
        with np.load(big_root / f"{name}.npz") as found:
            np.testing.assert_array_equal(found["places"], places)
            np.testing.assert_array_equal(found["labels"], labels)


@pytest.mark.data
@pytest.mark.skipif("BCL_DATA" not in os.environ, reason="BCL_DATA names no data folder")
def test_each_direction_of_the_real_cifar10_is_whitened_as_far_as_the_bias_lets_it(tmp_path):
    data = CIFAR10(cache_dir=str(tmp_path))
    data.prepare_data()
    white = data.loaded_splits()["train"].images.flatten(1).double().numpy()
    pixels = torch.cat([read_batch(file, data.root)[0] for file in CIFAR10.files[:-1]])
    raw = global_contrast_normalize(pixels[:45_000].float(), CONTRAST_SCALE).flatten(1).double()
    variances, directions = np.linalg.eigh(np.cov(raw.numpy().T, bias=True))
    # The leading directions, in which all but a hundredth of the variance lies.
    leading = directions[:, -100:]
    seen = (white @ leading).T
    covariance = np.cov(seen, bias=True)
    expected = variances[-100:] / (variances[-100:] + ZCA_BIAS)
    np.testing.assert_allclose(covariance, np.diag(expected), atol=1e-3)
    assert expected.min() > 0.9


if __name__ == "__main__":
    {"write": write_files, "use": prepare_and_iterate}[sys.argv[1]](Path(sys.argv[2]))
