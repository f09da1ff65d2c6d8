"""Downloads from servers that are good, bad and silent, on the loopback interface."""

import dataclasses
import errno
import hashlib
import multiprocessing
import os
import time

import pytest

from bclightning.data import files
from bclightning.data.files import DataFile, obtain
from bclightning.errors import DataError, UserError


def entries(root) -> list[str]:
    return sorted(path.name for path in root.glob("set/*") if path.suffix != ".lock")


@pytest.mark.parametrize(
    "bad",
    [
        "missing",
        "wrong",
        "truncated",
        "short",
        "oversized",
        "endless",
        "stalled",
        "slow",
        "dripping",
        "dripping-at-last",
        "dripping-header",
    ],
)
def test_a_bad_mirror_is_soon_left_for_the_next_and_leaves_nothing(
    server, tmp_path, monkeypatch, bad
):
    monkeypatch.setattr(files, "SILENCE_SECONDS", 0.4)
    monkeypatch.setattr(files, "MIN_BYTES_PER_SECOND", 10_000)
    started = time.monotonic()
    path = obtain(server.file(bad, "good"), tmp_path)
    # The slow answers would take six seconds and more, and the endless one 200 MiB.
    assert time.monotonic() - started < 4
    assert server.sent < server.far_too_much / 4
    assert path.read_bytes() == server.content
    assert server.requests == [bad, "good"]
    assert entries(tmp_path) == ["file.bin"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("missing", "status 404"),
        ("wrong", "does not match the published MD5"),
        ("truncated", "no connection, or it broke off"),
        ("short", "1000 bytes instead of 51200"),
        ("oversized", "more bytes than the file has"),
        ("dripping-header", "a stalled answer"),
    ],
)
def test_the_reason_of_a_failed_download_is_named(server, tmp_path, monkeypatch, bad, reason):
    monkeypatch.setattr(files, "SILENCE_SECONDS", 0.4)
    with pytest.raises(DataError, match=rf"/{bad}: {reason}\); put the file there"):
        obtain(server.file(bad), tmp_path)


def test_a_mirror_whose_address_is_none_is_left_for_the_next(server, tmp_path):
    file = dataclasses.replace(server.file("good"), urls=("http://[", server.url("good")))
    assert obtain(file, tmp_path).read_bytes() == server.content


def test_what_a_killed_download_left_goes_with_the_next(server, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / ".file.bin.x7.part").write_bytes(server.content[:9])
    (tmp_path / "set" / ".other.bin.x7.part").write_bytes(server.content[:9])
    obtain(server.file("good"), tmp_path)
    assert entries(tmp_path) == [".other.bin.x7.part", "file.bin"]


def test_a_file_that_is_there_is_not_downloaded(server, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file.bin").write_bytes(server.content)
    obtain(server.file("good"), tmp_path)
    assert server.requests == []


@pytest.mark.parametrize(
    ("part", "complaint"), [(slice(-1), "truncated"), (slice(None, None, -1), "published MD5")]
)
def test_a_damaged_file_is_refused_and_left_as_it_is(server, tmp_path, part, complaint):
    content = server.content[part]
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file.bin").write_bytes(content)
    with pytest.raises(DataError, match=f"file.bin .*{complaint}.*delete it"):
        obtain(server.file("good"), tmp_path)
    assert (tmp_path / "set" / "file.bin").read_bytes() == content
    assert server.requests == []


def test_a_file_that_changes_is_verified_again(server, tmp_path):
    path = obtain(server.file("good"), tmp_path)
    path.write_bytes(server.content[::-1])
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match="published MD5"):
        obtain(server.file("good"), tmp_path)


def test_without_a_mirror_one_sentence_says_which_file_and_where_to_put_it(server, tmp_path):
    urls = (server.url("missing"), "http://127.0.0.1:9/nothing")
    file = dataclasses.replace(server.file(), urls=urls)
    with pytest.raises(DataError) as refused:
        obtain(file, tmp_path)
    said = str(refused.value)
    assert "\n" not in said
    missing = "set/file.bin is missing and cannot be downloaded"
    for part in (missing, "status 404", "no connection", "--data.root DIR"):
        assert part in said
    assert entries(tmp_path) == []


def test_a_file_without_an_address_is_missing_in_one_sentence(server, tmp_path):
    with pytest.raises(DataError, match=r"missing and cannot be downloaded \(it has no address\)"):
        obtain(server.file(), tmp_path)


def test_a_full_disk_during_a_download_is_one_sentence_and_leaves_nothing(
    server, tmp_path, monkeypatch
):
    def full(url, file, output):
        output.write(b"some of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_download_from", full)
    with pytest.raises(UserError, match=r"the disk is full: .*file\.bin was not written"):
        obtain(server.file("good"), tmp_path)
    assert entries(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_one_sentence(server, tmp_path):
    (tmp_path / "set").write_text("a file where a folder should be")
    with pytest.raises(DataError, match="cannot be written"):
        obtain(server.file(), tmp_path)


def test_no_folder_is_made_for_a_file_that_cannot_be_downloaded(server, tmp_path):
    with pytest.raises(DataError, match="missing and cannot be downloaded"):
        obtain(server.file("missing"), tmp_path / "typo" / "data")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_stays_when_a_download_fails(server, tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match="missing and cannot be downloaded"):
        obtain(server.file("missing"), tmp_path)
    assert (tmp_path / "set").is_dir()


def test_a_file_in_another_form_is_used_in_its_place_and_verified_too(server, tmp_path):
    content = b"unpacked"
    unpacked = DataFile("set/file", hashlib.md5(content).hexdigest(), len(content))
    file = dataclasses.replace(server.file("good"), unpacked=unpacked)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file").write_bytes(content)
    assert obtain(file, tmp_path) == tmp_path / "set" / "file"
    assert server.requests == []
    (tmp_path / "set" / "file").write_bytes(content[::-1])
    os.utime(tmp_path / "set" / "file", ns=(1, 1))
    with pytest.raises(DataError, match="set/file does not match its published MD5"):
        obtain(file, tmp_path)
    (tmp_path / "set" / "file.bin").write_bytes(server.content)
    assert obtain(file, tmp_path) == tmp_path / "set" / "file.bin"


def test_a_file_system_that_cannot_flush_or_set_modes_gets_its_download(
    server, tmp_path, monkeypatch
):
    def unsupported(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    for name in ("fsync", "chmod"):
        monkeypatch.setattr(os, name, unsupported)
    assert obtain(server.file("good"), tmp_path).read_bytes() == server.content


def download(file: DataFile, root) -> None:
    obtain(file, root)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_several_processes_make_one_download(server, tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=download, args=(server.file("late"), tmp_path)) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert server.requests == ["late"]
    assert entries(tmp_path) == ["file.bin"]
