"""Files are whole or not there at all."""

import errno
import os

import pytest

from bclightning.errors import UserError
from bclightning.storage import checked_target, replacing, write_text


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
