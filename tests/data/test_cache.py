"""Cached arrays: made once, found again, made again when anything they depend on changes."""

import errno
import logging
import multiprocessing
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bclightning.data import CIFAR10
from bclightning.data.cache import cached_array
from bclightning.errors import UserError
from bclightning.functional.whitening import ZCA


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


def in_a_new_process(monkeypatch) -> None:
    """Forget what this process has verified."""
    monkeypatch.setattr("bclightning.data.cache._verified", set())


def damage(path, place: int, content: bytes) -> None:
    """Write into a file as a failing disk does, without its time of change."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(place)
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("zeroed", [range(128, 160), range(144, 145), range(158, 160)])
def test_content_that_was_damaged_is_made_again_and_said(tmp_path, monkeypatch, caplog, zeroed):
    fill = Filler()
    cached(tmp_path, fill)
    (path,) = tmp_path.glob("*.npy")
    whole = path.read_bytes()
    damage(path, zeroed.start, bytes(255 - whole[i] for i in zeroed))
    in_a_new_process(monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(cached(tmp_path, fill), torch.arange(8.0).reshape(4, 2))
    assert path.read_bytes() == whole
    assert fill.calls == 2
    assert f"the cache {path} is damaged, or an older version's" in caplog.text


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_and_no_truncation_is_taken_for_the_array(tmp_path_factory, data):
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder, fill = tmp_path_factory.mktemp("cache"), Filler()
        cached(folder, fill)
        (path,) = folder.glob("*.npy")
        whole = path.read_bytes()
        if data.draw(st.booleans()):
            place, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
            damage(path, place, bytes([whole[place] ^ 1 << bit]))
        else:
            path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        in_a_new_process(monkeypatch)
        assert torch.equal(cached(folder, fill), torch.arange(8.0).reshape(4, 2))
        assert path.read_bytes() == whole


def test_a_cache_of_an_older_version_without_a_checksum_is_made_again(tmp_path, monkeypatch):
    fill = Filler()
    expected = cached(tmp_path, fill).clone()
    (path,) = tmp_path.glob("*.npy")
    np.save(path, np.zeros((4, 2), "float32"))
    in_a_new_process(monkeypatch)
    assert torch.equal(cached(tmp_path, fill), expected)
    assert fill.calls == 2


def test_content_is_verified_once_in_a_process(tmp_path, monkeypatch):
    fill = Filler()
    cached(tmp_path, fill)
    in_a_new_process(monkeypatch)
    cached(tmp_path, fill)
    monkeypatch.setattr("zlib.crc32", lambda *_: pytest.fail("verified again"))
    cached(tmp_path, fill)
    assert fill.calls == 1


def test_a_damaged_cache_changes_no_result(cifar10_root, monkeypatch):
    monkeypatch.setattr(ZCA, "fit", lambda *_: ZCA(torch.zeros(3072), torch.eye(3072)))
    first = CIFAR10(str(cifar10_root)).loaded_splits()["test"].images.clone()
    (path,) = (cifar10_root / "bclightning-cache").glob("*.npy")
    damage(path, path.stat().st_size // 2, bytes(100_000))
    in_a_new_process(monkeypatch)
    assert torch.equal(CIFAR10(str(cifar10_root)).loaded_splits()["test"].images, first)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_space_is_allocated_by_writing_where_the_file_system_has_no_other_way(
    tmp_path, monkeypatch, number
):
    def unsupported(*arguments):
        raise OSError(number, "unsupported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    assert torch.equal(cached(tmp_path, Filler()), torch.arange(8.0).reshape(4, 2))


@pytest.mark.parametrize("flushed", ["file", "folder"])
def test_a_file_system_that_cannot_flush_keeps_the_cache(tmp_path, monkeypatch, flushed):
    def unsupported(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}") == (flushed == "folder"):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", unsupported)
    fill = Filler()
    cached(tmp_path, fill)
    in_a_new_process(monkeypatch)
    cached(tmp_path, fill)
    assert fill.calls == 1


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
