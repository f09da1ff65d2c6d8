"""Files are whole or not there at all."""

import errno
import os
from pathlib import Path

import pytest

from bclightning.errors import UserError
from bclightning.storage import checked_target, expanded, home_expanded, replacing, write_text


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "record"
    write_text(path, "old")

    def fail():
        with replacing(path, "w") as file:
            file.write("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["record"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path, monkeypatch, number):
    path = tmp_path / "record"
    write_text(path, "old")

    def full(descriptor):
        raise OSError(number, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"the disk is full: .* older content is intact"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["record"]


def test_other_errors_are_not_called_a_full_disk(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="record cannot be written: No such file or directory"):
        write_text(tmp_path / "nowhere" / "record", "new")

    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        write_text(tmp_path / "record", "new")
    assert not list(tmp_path.iterdir())


def test_a_file_to_be_written_is_no_folder_and_has_one(tmp_path):
    assert checked_target(tmp_path / "new") == tmp_path / "new"
    with pytest.raises(UserError, match="is a folder; give the name of a file"):
        checked_target(tmp_path)
    with pytest.raises(UserError, match=r"there is no folder .*nowhere for new"):
        checked_target(tmp_path / "nowhere" / "new")


def test_a_reader_sees_the_old_content_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "record"
    write_text(path, "old")
    with replacing(path, "w") as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_new_files_have_the_permissions_of_ordinary_ones(tmp_path):
    (tmp_path / "plain").touch()
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


# What file systems answer that cannot do what they are asked: SMB, VirtualBox, WSL and FUSE.
UNSUPPORTED = [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES]


@pytest.mark.parametrize("number", UNSUPPORTED)
@pytest.mark.parametrize("call", ["fsync", "chmod"])
def test_a_file_system_that_cannot_flush_or_set_modes_is_written_all_the_same(
    tmp_path, monkeypatch, call, number
):
    def unsupported(*_, **__):
        raise OSError(number, os.strerror(number))

    for name in {"fsync": ("fsync",), "chmod": ("chmod", "fchmod")}[call]:
        monkeypatch.setattr(os, name, unsupported)
    write_text(tmp_path / "record", "new")
    assert (tmp_path / "record").read_text() == "new"
    assert os.listdir(tmp_path) == ["record"]


def test_a_folder_that_cannot_be_opened_is_not_flushed(tmp_path, monkeypatch):
    """As on Windows, where no folder can be opened."""
    whole = os.open

    def open_files_only(path, *arguments, **keywords):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return whole(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", open_files_only)
    write_text(tmp_path / "record", "new")
    assert (tmp_path / "record").read_text() == "new"


def test_a_disk_that_fails_when_a_folder_is_flushed_is_not_passed_over(tmp_path, monkeypatch):
    whole = os.fsync

    def broken(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EIO, "Input/output error")
        whole(descriptor)

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output error"):
        write_text(tmp_path / "record", "new")


def test_text_is_utf8_with_unix_line_ends_whatever_is_in_it(tmp_path):
    write_text(tmp_path / "text", "a\nm\udcffn\n")
    assert (tmp_path / "text").read_bytes() == b"a\nm\\udcffn\n"


@pytest.mark.parametrize("name", ["~/mine", "~"])
def test_a_path_below_home_is_expanded(monkeypatch, name):
    monkeypatch.setenv("HOME", "/home/me")
    assert str(expanded(name)) == name.replace("~", "/home/me")


def test_other_paths_stay_as_they_are():
    for name in ("a/~/b", "a~", ".", "/x", "~no-such-user/x"):
        assert str(expanded(name)) == name


def test_home_is_expanded_in_plain_data_in_text_and_in_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    given = {"data.root": Path("~/sets"), "skip": ["~/a", "~", "a~/b"], "epochs": 3, "x": None}
    assert home_expanded(given) == {
        "data.root": "/home/me/sets",
        "skip": ["/home/me/a", "~", "a~/b"],
        "epochs": 3,
        "x": None,
    }


def test_a_target_below_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_text(checked_target("~/record"), "new")
    assert (tmp_path / "record").read_text() == "new"
