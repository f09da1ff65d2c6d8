"""Downloads from servers that are good, bad and silent, on the loopback interface."""

import contextlib
import hashlib
import http.server
import multiprocessing
import os
import threading
import time

import pytest

from bclightning.data import files
from bclightning.data.files import DataFile, obtain
from bclightning.errors import DataError

CONTENT = bytes(range(256)) * 200


class Server(http.server.ThreadingHTTPServer):
    """Serves the content, or misbehaves as the path says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args) -> None: ...

    def do_GET(self) -> None:
        kind = self.path[1:]
        self.server.requests.append(kind)
        match kind:
            case "good":
                self.answer(CONTENT)
            case "slow":
                time.sleep(0.5)
                self.answer(CONTENT)
            case "missing":
                self.send_error(404)
            case "wrong":
                self.answer(CONTENT[::-1])
            case "truncated":
                self.answer(CONTENT[:1000], len(CONTENT))
            case "short":
                self.answer(CONTENT[:1000])
            case "oversized":
                self.answer(CONTENT * 2)
            case "endless":
                self.send_response(200)
                self.end_headers()
                for _ in range(1000):
                    self.wfile.write(CONTENT)
            case "stalled":
                self.answer(CONTENT[:1000], len(CONTENT), wait=3.0)
            case "dripping":
                self.send_response(200)
                self.end_headers()
                for byte in CONTENT[:200]:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.1)

    def answer(self, content: bytes, length: int | None = None, wait: float = 0.0) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length or len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()
        time.sleep(wait)

    def handle(self) -> None:
        # A client that has had enough closes the connection.
        with contextlib.suppress(OSError):
            super().handle()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


def wanted(*urls: str) -> DataFile:
    return DataFile("set/file.bin", hashlib.md5(CONTENT).hexdigest(), len(CONTENT), urls)


def entries(root) -> list[str]:
    return sorted(entry.name for entry in (root / "set").iterdir() if entry.suffix != ".lock")


@pytest.mark.parametrize(
    "bad", ["missing", "wrong", "truncated", "short", "oversized", "endless", "stalled", "dripping"]
)
def test_a_bad_mirror_is_passed_over_and_leaves_nothing(server, tmp_path, monkeypatch, bad):
    monkeypatch.setattr(files, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(files, "SLOWEST", 10_000)
    started = time.monotonic()
    path = obtain(wanted(server.url(bad), server.url("good")), tmp_path)
    assert time.monotonic() - started < 5
    assert path.read_bytes() == CONTENT
    assert server.requests == [bad, "good"]
    assert entries(tmp_path) == ["file.bin"]


def test_what_a_killed_download_left_goes_with_the_next(server, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / ".file.bin.x7.part").write_bytes(CONTENT[:9])
    (tmp_path / "set" / ".other.bin.x7.part").write_bytes(CONTENT[:9])
    obtain(wanted(server.url("good")), tmp_path)
    assert entries(tmp_path) == [".other.bin.x7.part", "file.bin"]


def test_a_file_that_is_there_is_not_downloaded(server, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file.bin").write_bytes(CONTENT)
    obtain(wanted(server.url("good")), tmp_path)
    assert server.requests == []


@pytest.mark.parametrize(
    ("content", "complaint"), [(CONTENT[:-1], "truncated"), (CONTENT[::-1], "published MD5")]
)
def test_a_damaged_file_is_refused_and_left_as_it_is(server, tmp_path, content, complaint):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file.bin").write_bytes(content)
    with pytest.raises(DataError, match=f"file.bin .*{complaint}.*delete it"):
        obtain(wanted(server.url("good")), tmp_path)
    assert (tmp_path / "set" / "file.bin").read_bytes() == content
    assert server.requests == []


def test_a_file_that_changes_is_verified_again(server, tmp_path):
    path = obtain(wanted(server.url("good")), tmp_path)
    path.write_bytes(CONTENT[::-1])
    os.utime(path, ns=(1, 1))
    with pytest.raises(DataError, match="published MD5"):
        obtain(wanted(server.url("good")), tmp_path)


def test_without_a_mirror_one_sentence_says_which_file_and_where_to_put_it(server, tmp_path):
    file = wanted(server.url("missing"), "http://127.0.0.1:9/nothing")
    with pytest.raises(DataError) as refused:
        obtain(file, tmp_path)
    said = str(refused.value)
    assert "\n" not in said
    for part in ("set/file.bin is missing", "status 404", "no connection", "--data.root DIR"):
        assert part in said
    assert entries(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "set").write_text("a file where a folder should be")
    with pytest.raises(DataError, match="cannot be written"):
        obtain(wanted(), tmp_path)


def download(url: str, root) -> None:
    obtain(wanted(url), root)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_several_processes_make_one_download(server, tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [
        context.Process(target=download, args=(server.url("slow"), tmp_path)) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert server.requests == ["slow"]
    assert entries(tmp_path) == ["file.bin"]
