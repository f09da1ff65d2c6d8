"""Damage and kills: what is refused, what is left, and what is made again."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch

from bclightning.data import CIFAR10, MNIST, SVHN, cifar10, mnist, svhn
from bclightning.data.cache import cached_array
from bclightning.errors import DataError


def parsed(*_, **__):
    pytest.fail("parsed before it was verified")


@pytest.mark.parametrize("index", [0, -1])
@pytest.mark.parametrize(
    ("kind", "root", "module", "parser"),
    [
        (MNIST, "mnist_root", mnist, "read_idx"),
        (CIFAR10, "cifar10_root", cifar10, "_BatchUnpickler"),
        (SVHN, "svhn_root", svhn, "read_mat"),
    ],
)
def test_one_flipped_bit_of_a_file_is_refused_before_it_is_parsed_and_the_file_is_left(
    request, monkeypatch, kind, root, module, parser, index
):
    folder = request.getfixturevalue(root)
    monkeypatch.setattr(module, parser, parsed)
    path = folder / kind.files[index].name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path.name} does not match its published MD5"):
        kind(str(folder)).prepare_data()
    assert path.read_bytes() == content
    assert not (folder / "bclightning-cache").exists()


def test_a_damaged_archive_is_refused_before_it_is_opened(cifar10_archive, monkeypatch):
    path = cifar10_archive / CIFAR10.archive.name
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")
    monkeypatch.setattr(cifar10.tarfile, "open", parsed)
    with pytest.raises(DataError, match="is truncated or another file; delete it"):
        CIFAR10(str(cifar10_archive)).prepare_data()
    assert path.exists()


def test_svhn_with_another_number_of_images_is_refused_and_caches_nothing(svhn_root, monkeypatch):
    monkeypatch.setattr(SVHN, "counts", (60, 91, 40))
    with pytest.raises(DataError, match=r"extra_32x32\.mat contains 90 images instead of 91"):
        SVHN(str(svhn_root)).prepare_data()
    cache = svhn_root / "bclightning-cache"
    assert [path for path in cache.iterdir() if path.suffix != ".lock"] == []


@pytest.mark.parametrize("other", [np.zeros(9, "float32"), np.zeros(10, "float64")])
def test_a_whole_array_of_another_kind_is_not_taken_for_the_cached_one(tmp_path, other):
    def cached():
        return cached_array(tmp_path, "kind", {}, (10,), "float32", lambda array: array.fill(1))

    cached()
    (path,) = tmp_path.glob("*.npy")
    np.save(path, other)
    made = cached()
    assert made.tolist() == [1] * 10
    assert made.dtype == torch.float32


def fill_half_and_wait(folder) -> None:
    def fill(array) -> None:
        array[:5] = 7
        array.flush()
        (folder / "half").touch()
        time.sleep(60)

    cached_array(folder, "killed", {}, (10,), "float32", fill)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_a_killed_process_was_filling_is_not_taken_for_the_array(tmp_path):
    process = multiprocessing.get_context("fork").Process(
        target=fill_half_and_wait, args=(tmp_path,)
    )
    process.start()
    deadline = time.monotonic() + 30
    while not (tmp_path / "half").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert list(tmp_path.glob(".*.part"))
    made = cached_array(tmp_path, "killed", {}, (10,), "float32", lambda array: array.fill(1))
    assert made.tolist() == [1] * 10
    assert not list(tmp_path.glob(".*.part"))
