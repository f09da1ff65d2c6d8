"""Damage, kills and full disks: what is refused, what is left, and what is made anew."""

import contextlib
import errno
import gzip
import hashlib
import http.server
import multiprocessing
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch

from bclightning.data import CIFAR10, MNIST, SVHN, cifar10, files, mnist, svhn
from bclightning.data.cache import cached_array
from bclightning.data.files import DataFile, obtain
from bclightning.data.mnist import read_idx
from bclightning.errors import DataError, UserError


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
        with pytest.raises(DataError, match="not a whole IDX file"):
            read_idx(path)


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
    with pytest.raises(DataError, match=r"extra_32x32\.mat holds 90 images instead of 91"):
        SVHN(str(svhn_root)).prepare_data()
    cache = svhn_root / "bclightning-cache"
    assert [path for path in cache.iterdir() if path.suffix != ".lock"] == []


def test_a_full_disk_during_a_download_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def full(url, file, output):
        output.write(b"some of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_download_from", full)
    file = DataFile("file", hashlib.md5(b"").hexdigest(), 0, ("http://127.0.0.1:9/",))
    with pytest.raises(UserError, match=r"the disk is full: .*file was not written"):
        obtain(file, tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []


CONTENT = bytes(range(256)) * 200
FAR_TOO_MUCH = 200 * 2**20


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends too much, too little or too slowly; the server counts what it could send."""

    def log_message(self, *args) -> None: ...

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path != "/endless":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        # A client that has had enough closes the connection.
        with contextlib.suppress(OSError):
            match self.path:
                case "/good":
                    self.wfile.write(CONTENT)
                case "/endless":
                    while self.server.sent < FAR_TOO_MUCH:
                        self.server.sent += self.wfile.write(CONTENT)
                case "/stalled":
                    self.wfile.write(CONTENT[:1000])
                    self.server.over.wait(6)
                case "/slow":
                    for start in range(0, len(CONTENT), 2048):
                        self.wfile.write(CONTENT[start : start + 2048])
                        if self.server.over.wait(0.25):
                            return


@pytest.fixture
def mirror():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.sent, server.over = 0, threading.Event()
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield server
        server.over.set()
        server.shutdown()
        serving.join()


@pytest.mark.parametrize("bad", ["endless", "stalled", "slow"])
def test_a_mirror_that_would_never_be_done_is_soon_left_for_the_next(
    mirror, tmp_path, monkeypatch, bad
):
    monkeypatch.setattr(files, "SILENCE_SECONDS", 0.4)
    monkeypatch.setattr(files, "SLOWEST", 100_000)
    address = f"http://127.0.0.1:{mirror.server_port}"
    urls = (f"{address}/{bad}", f"{address}/good")
    file = DataFile("file", hashlib.md5(CONTENT).hexdigest(), len(CONTENT), urls)
    started = time.monotonic()
    assert obtain(file, tmp_path).read_bytes() == CONTENT
    # Their answers would take six seconds each, and the endless one 200 MiB.
    assert time.monotonic() - started < 4
    assert mirror.sent < FAR_TOO_MUCH / 4
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == ["file"]


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
