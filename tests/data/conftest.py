"""A server on the loopback interface that is good, bad or silent, as the path says."""

import contextlib
import hashlib
import http.server
import threading
import time

import pytest

from bclightning.data.files import DataFile

CONTENT = bytes(range(256)) * 200
FAR_TOO_MUCH = 200 * 2**20


class Server(http.server.ThreadingHTTPServer):
    """Serves the content, or misbehaves; counts what was asked of it and what it sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.far_too_much = FAR_TOO_MUCH
        self.requests: list[str] = []
        self.sent = 0
        # Set when the test is over, for answers that are still under way.
        self.over = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"

    def file(self, *paths: str) -> DataFile:
        """A file with the content, on one mirror for each path."""
        urls = tuple(self.url(path) for path in paths)
        return DataFile("set/file.bin", hashlib.md5(CONTENT).hexdigest(), len(CONTENT), urls)


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args) -> None: ...

    def do_GET(self) -> None:
        kind = self.path[1:]
        self.server.requests.append(kind)
        match kind:
            case "good":
                self.answer(CONTENT)
            case "late":
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
                self.begin()
                while self.server.sent < FAR_TOO_MUCH:
                    self.send(CONTENT)
            case "stalled":
                self.answer(CONTENT[:1000], len(CONTENT))
                self.server.over.wait(6)
            case "slow":
                self.begin(len(CONTENT))
                self.drip(CONTENT, size=2048, seconds=0.25)
            case "dripping":
                self.begin()
                self.drip(CONTENT)
            case "dripping-at-last":
                self.answer(CONTENT[:-1000], len(CONTENT))
                self.drip(CONTENT[-1000:])
            case "dripping-header":
                self.drip(b"HTTP/1.1 200 OK\r\nX-Padding: " + b"x" * len(CONTENT))

    def begin(self, length: int | None = None) -> None:
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def answer(self, content: bytes, length: int | None = None) -> None:
        self.begin(length or len(content))
        self.send(content)

    def drip(self, content: bytes, size: int = 1, seconds: float = 0.1) -> None:
        for start in range(0, len(content), size):
            self.send(content[start : start + size])
            if self.server.over.wait(seconds):
                return

    def send(self, content: bytes) -> None:
        self.server.sent += self.wfile.write(content)

    def handle(self) -> None:
        # A client that has had enough closes the connection.
        with contextlib.suppress(OSError):
            super().handle()


@pytest.fixture
def server():
    with Server() as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield server
        server.over.set()
        server.shutdown()
        serving.join()
