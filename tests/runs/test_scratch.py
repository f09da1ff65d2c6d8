"""Folders for what is being written: none is left, and none of a living process is touched."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from bclightning.errors import MachineError
from bclightning.runs.scratch import scratch_folder
from bclightning.storage import DiskFullError, replacing

HOLD = """
import sys, time
from pathlib import Path
from bclightning.runs.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as place:
    (place / "half").write_bytes(b"written")
    print(place.name, flush=True)
    time.sleep(60)
"""


def names(folder) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def holder(tmp_path):
    """Another process in the middle of writing, and the name of its folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "m.onnx")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process, process.stdout.readline().strip()
        process.kill()


def test_a_killed_process_s_folder_goes_and_a_living_one_s_stays(tmp_path, holder):
    process, name = holder
    with scratch_folder(tmp_path / "m.onnx") as place:
        assert names(tmp_path) == sorted([name, place.name])
    assert names(tmp_path) == [name]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert names(tmp_path) == [name]
    with scratch_folder(tmp_path / "other.safetensors") as place:
        assert names(tmp_path) == [place.name]
    assert names(tmp_path) == []


def test_an_older_version_s_leftovers_go_and_other_folders_stay(tmp_path):
    for name in (".export-old", ".export-new", "mine", "away"):
        (tmp_path / name).mkdir()
    (tmp_path / ".export-file").write_text("a file")
    (tmp_path / ".export-link").symlink_to(tmp_path / "away")
    hours_ago = time.time() - 7200
    for name in (".export-old", "mine", "away"):
        os.utime(tmp_path / name, (hours_ago, hours_ago))
    with scratch_folder(tmp_path / "m"):
        pass
    assert names(tmp_path) == [".export-file", ".export-link", ".export-new", "away", "mine"]


def test_nothing_is_left_after_an_error(tmp_path):
    def fail():
        with scratch_folder(tmp_path / "m") as place:
            (place / "half").write_bytes(b"written")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOENT])
def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "mkdir", refuse)
    with (
        pytest.raises(MachineError, match=rf"m\.onnx cannot be written: {os.strerror(number)}"),
        scratch_folder(tmp_path / "m.onnx"),
    ):
        pass


def test_a_full_disk_names_the_file_that_was_asked_for(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def write():
        with scratch_folder(tmp_path / "m.onnx") as place:
            monkeypatch.setattr(os, "fsync", full)
            with replacing(place / "m.onnx") as file:
                file.write(b"a graph")

    with pytest.raises(DiskFullError, match=r"/m\.onnx was not written"):
        write()
    assert names(tmp_path) == []
