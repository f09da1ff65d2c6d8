"""Data files: found where people already have them, else downloaded; never used unverified."""

import glob
import os
import queue
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import filelock
import pooch
import requests

from bclightning.errors import DataError
from bclightning.storage import TEMPORARY_SUFFIX, flush_folder, full_disk

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 30.0
SLOWEST = 1000  # bytes a second, after the first SILENCE_SECONDS

# What was verified in this process, by path, size and time of change: a large file is read once.
_verified: set[tuple[str, int, int, str]] = set()


@dataclass(frozen=True)
class DataFile:
    """A file that its publisher ships, and how to know it.

    Attributes:
        name: Path below the data folder, as ``MNIST/raw/train-images-idx3-ubyte.gz``.
        md5: Published checksum.
        size: Size in bytes.
        urls: Where it can be had, tried in turn.
    """

    name: str
    md5: str
    size: int
    urls: tuple[str, ...] = ()


def verify(file: DataFile, path: Path) -> None:
    """Check a file that is there, before anything parses it.

    Raises:
        DataError: It is not what its publisher shipped; it is left as it is.
    """
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns, file.md5)
    if key in _verified:
        return
    if status.st_size != file.size:
        raise DataError(
            f"{path} has {status.st_size} bytes instead of {file.size}: it is truncated or another "
            "file; delete it, and it is downloaded again"
        )
    if pooch.file_hash(str(path), alg="md5") != file.md5:
        raise DataError(
            f"{path} does not match its published MD5 {file.md5}; delete it, and it is downloaded "
            "again"
        )
    _verified.add(key)


def obtain(file: DataFile, root: Path) -> Path:
    """The verified path of a file below `root`, downloaded if it is not there.

    Several processes that need the same file make one download; who reads the folder meanwhile
    sees the whole file or none.

    Args:
        file: The file.
        root: The data folder.

    Raises:
        DataError: The file is damaged, or no mirror had it; the message says what to do.
    """
    path = root / file.name
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(path.with_name(f".{path.name}.lock")):
                # Another process may have had it while this one waited.
                if not path.exists():
                    _download(file, path)
        except OSError as error:
            raise full_disk(error, path) or DataError(
                f"{path} cannot be written ({error.strerror}); "
                "say with --data.root DIR where the data is, or may go"
            ) from error
    verify(file, path)
    return path


def _download(file: DataFile, path: Path) -> None:
    # Under the file's lock, so that what lies there was left by downloads that were killed.
    for orphan in path.parent.glob(f".{glob.escape(path.name)}.*{TEMPORARY_SUFFIX}"):
        orphan.unlink(missing_ok=True)
    failures = []
    for url in file.urls:
        descriptor, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX, dir=path.parent
        )
        try:
            with os.fdopen(descriptor, "wb") as output:
                _download_from(url, file, output)
                output.flush()
                os.fsync(output.fileno())
            if pooch.file_hash(name, alg="md5") != file.md5:
                raise _BadAnswerError("another content than the published one")
            os.chmod(name, 0o644)
            os.replace(name, path)
            flush_folder(path.parent)
            return
        except (requests.RequestException, _BadAnswerError) as error:
            failures.append(f"{url}: {_reason(error)}")
        finally:
            Path(name).unlink(missing_ok=True)
    tried = "; ".join(failures) or "it can be had from nowhere else"
    raise DataError(
        f"{path} is missing and could not be downloaded ({tried}); put the file there, "
        "or say with --data.root DIR where the data is"
    )


def _download_from(url: str, file: DataFile, output: IO[bytes]) -> None:
    bounded = _Bounded(output, file.size)
    answers: list[requests.Response] = []
    download = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(),
        chunk_size=1 << 16,
        timeout=(CONNECT_SECONDS, SILENCE_SECONDS),
        # To close them, which the downloader leaves to the garbage collector after an error.
        hooks={"response": lambda response, *_, **__: answers.append(response)},
    )
    # In a thread of its own, for a server that sends a byte now and then keeps its reader waiting
    # without ever running into a time-out.
    outcome: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            download(url, bounded, None)
            outcome.put(None)
        except BaseException as error:
            outcome.put(error)
        finally:
            for answer in answers:
                answer.close()

    threading.Thread(target=run, daemon=True).start()
    while True:
        try:
            error = outcome.get(timeout=min(0.5, SILENCE_SECONDS))
            break
        except queue.Empty:
            if bounded.is_too_slow():
                bounded.abandoned = True
                raise _BadAnswerError("a stalled answer") from None
    if error is not None:
        raise error
    if output.tell() != file.size:
        raise _BadAnswerError(f"{output.tell()} bytes instead of {file.size}")


def _reason(error: Exception) -> str:
    match error:
        case requests.HTTPError() if error.response is not None:
            return f"status {error.response.status_code}"
        case requests.Timeout():
            return "no answer in time"
        case requests.ConnectionError():
            return "no connection"
        case _:
            return str(error) or type(error).__name__


class _BadAnswerError(Exception):
    """A server sent something other than the file."""


class _Bounded:
    """Passes bytes on, until there are more than there should be or nobody waits for them."""

    def __init__(self, output: IO[bytes], size: int) -> None:
        self._output = output
        self._left = size
        self._received = 0
        self._started = time.monotonic()
        self.abandoned = False

    def is_too_slow(self) -> bool:
        """Whether, after a first while, the bytes come slower than any usable connection's."""
        elapsed = time.monotonic() - self._started
        return elapsed > SILENCE_SECONDS and self._received < SLOWEST * elapsed

    def write(self, data: bytes) -> int:
        self._left -= len(data)
        self._received += len(data)
        if self._left < 0:
            raise _BadAnswerError("more bytes than the file has")
        if self.abandoned:
            raise _BadAnswerError("a stalled answer")
        return self._output.write(data)

    def flush(self) -> None:
        self._output.flush()
