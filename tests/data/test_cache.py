"""Cached arrays: made once, found again, made again when anything they depend on changes."""

import errno
import multiprocessing
import os

import numpy as np
import pytest
import torch

from bclightning.data.cache import cached_array
from bclightning.errors import UserError


class Filler:
    """Counts how often it is asked to fill."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, array) -> None:
        self.calls += 1
        array[:] = np.arange(array.size).reshape(array.shape)


def cached(folder, fill, depends_on=None, shape=(4, 2), dtype="float32"):
    return cached_array(folder, "name", depends_on or {"a": 1}, shape, dtype, fill)


def test_it_is_made_once_and_found_again(tmp_path):
    fill = Filler()
    first, second = cached(tmp_path, fill), cached(tmp_path, fill)
    assert fill.calls == 1
    assert torch.equal(first, second)
    assert torch.equal(second, torch.arange(8.0).reshape(4, 2))


@pytest.mark.parametrize(
    "change", [{"depends_on": {"a": 2}}, {"shape": (8,)}, {"dtype": "float64"}]
)
def test_whatever_it_depends_on_makes_another_one(tmp_path, change):
    fill = Filler()
    cached(tmp_path, fill)
    cached(tmp_path, fill, **change)
    assert fill.calls == 2


@pytest.mark.parametrize("damage", [lambda content: content[:50], lambda content: b"other"])
def test_a_torn_or_foreign_file_is_made_again(tmp_path, damage):
    fill = Filler()
    cached(tmp_path, fill)
    (path,) = tmp_path.glob("*.npy")
    path.write_bytes(damage(path.read_bytes()))
    assert torch.equal(cached(tmp_path, fill), torch.arange(8.0).reshape(4, 2))
    assert fill.calls == 2


def test_a_filler_that_fails_leaves_nothing(tmp_path):
    def fail(array):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cached(tmp_path, fail)
    assert not list(tmp_path.glob("*.npy")) + list(tmp_path.glob("*.part"))


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match="the disk is full"):
        cached(tmp_path, Filler())
    assert not list(tmp_path.glob("*.npy")) + list(tmp_path.glob(".*.part"))


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="give a folder that can with"):
        cached(tmp_path / "file" / "cache", Filler())


def test_writing_to_the_tensor_does_not_reach_the_file(tmp_path):
    fill = Filler()
    cached(tmp_path, fill).zero_()
    assert cached(tmp_path, fill).sum() == 28


def slowly(array) -> None:
    import time

    time.sleep(0.3)
    array[:] = 1


def count(array, path) -> None:
    with open(path, "a") as file:
        file.write("x")
    slowly(array)


def make(folder) -> None:
    cached_array(
        folder, "shared", {}, (10,), "float32", lambda array: count(array, folder / "calls")
    )


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_several_processes_make_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=make, args=(tmp_path,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert (tmp_path / "calls").read_text() == "x"
