"""Data files: read where they are, else downloaded; verified before anything parses them."""

import contextlib
import glob
import hashlib
import os
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import filelock
import requests
from rich.console import Console
from rich.progress import Progress

from bclightning.errors import DataError
from bclightning.storage import (
    TEMPORARY_SUFFIX,
    flush_file,
    flush_folder,
    full_disk,
    make_ordinary,
)

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 30.0
# On average over each period of SILENCE_SECONDS or a little more.
MIN_BYTES_PER_SECOND = 1000
# Less than the slowest connection that is kept brings in SILENCE_SECONDS.
CHUNK_BYTES = 1 << 14

# Files verified in this process, by path, size and time of change: a large one is read once.
_verified: set[tuple[str, int, int, str]] = set()


@dataclass(frozen=True)
class DataFile:
    """A file of a data set, with the checksum and size that identify it.

    Attributes:
        name: Path below the data folder, as ``MNIST/raw/train-images-idx3-ubyte.gz``.
        md5: Published checksum.
        size: Size in bytes.
        urls: Addresses to download it from, tried in turn.
        unpacked: The same content uncompressed, which is used where only that is there.
    """

    name: str
    md5: str
    size: int
    urls: tuple[str, ...] = ()
    unpacked: "DataFile | None" = None


def verify(file: DataFile, path: Path) -> None:
    """Check the size and checksum of an existing file.

    Args:
        file: The file that should be there.
        path: Its path.

    Raises:
        DataError: The file is truncated, damaged or another one; it is left as it is.
    """
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns, file.md5)
    if key in _verified:
        return
    if status.st_size != file.size:
        raise DataError(
            f"{path} has {status.st_size} bytes instead of {file.size}: it is truncated or another "
            "file; delete it to download it again"
        )
    if _md5(path) != file.md5:
        raise DataError(
            f"{path} does not match its published MD5 {file.md5}; delete it to download it again"
        )
    _verified.add(key)


def _md5(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "md5").hexdigest()


def obtain(file: DataFile, root: Path) -> Path:
    """Path of a verified file below `root`, downloaded if it is missing.

    Several processes that need the same file make one download. A reader of the folder sees the
    whole file or none, and a folder that was made for nothing goes again.

    Args:
        file: The file.
        root: The data folder.

    Returns:
        The path of the file, or of its unpacked form where only that is there.

    Raises:
        DataError: The file is damaged, or missing and cannot be downloaded; the message says what
            to do.
    """
    path = root / file.name
    if not path.exists():
        if file.unpacked is not None and (root / file.unpacked.name).exists():
            return obtain(file.unpacked, root)
        try:
            with _folder_for(path), filelock.FileLock(_lock_of(path)):
                # Another process may have downloaded it while this one waited.
                if not path.exists():
                    _download(file, path)
        except OSError as error:
            raise full_disk(error, path) or DataError(
                f"{path} cannot be written ({error.strerror}); "
                "give the folder of the data with --data.root DIR"
            ) from error
    verify(file, path)
    return path


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


@contextlib.contextmanager
def _folder_for(path: Path) -> Iterator[None]:
    """Make the folder of a file, and remove what was made of it if the block fails."""
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        if made:
            # Not where another process has put something into it meanwhile.
            with contextlib.suppress(OSError):
                _lock_of(path).unlink(missing_ok=True)
                for folder in made:
                    folder.rmdir()
        raise


def _download(file: DataFile, path: Path) -> None:
    # The lock of the file is held, so temporary files were left by downloads that were killed.
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
                flush_file(output)
            if _md5(Path(name)) != file.md5:
                raise _BadAnswerError("does not match the published MD5")
            make_ordinary(name)
            os.replace(name, path)
            flush_folder(path.parent)
            return
        except (requests.RequestException, _BadAnswerError) as error:
            failures.append(f"{url}: {_reason(error)}")
        finally:
            Path(name).unlink(missing_ok=True)
    tried = "; ".join(failures) or "it has no address"
    raise DataError(
        f"{path} is missing and cannot be downloaded ({tried}); put the file there, "
        "or give the folder of the data with --data.root DIR"
    )


def _download_from(url: str, file: DataFile, output: IO[bytes]) -> None:
    # A server that sends a byte now and then, of the header or of the content, keeps its reader
    # waiting without ever running into a time-out. So a thread of its own reads, and may be left.
    chunks: queue.Queue[bytes | Exception | None] = queue.Queue(maxsize=16)
    threading.Thread(target=_receive, args=(url, chunks), daemon=True).start()
    received = recent = 0
    since = time.monotonic()
    with Progress(
        console=Console(stderr=True), disable=sys.stderr is None or not sys.stderr.isatty()
    ) as progress:
        bar = progress.add_task(Path(file.name).name, total=file.size)
        while True:
            try:
                chunk = chunks.get(timeout=min(0.5, SILENCE_SECONDS))
            except queue.Empty:
                chunk = b""
            if isinstance(chunk, Exception):
                raise chunk
            if chunk is None:
                break
            received += len(chunk)
            recent += len(chunk)
            if received > file.size:
                raise _BadAnswerError("more bytes than the file has")
            now = time.monotonic()
            if now - since > SILENCE_SECONDS:
                if recent < MIN_BYTES_PER_SECOND * (now - since):
                    raise _BadAnswerError("a stalled answer")
                since, recent = now, 0
            output.write(chunk)
            progress.update(bar, completed=received)
    if received != file.size:
        raise _BadAnswerError(f"{received} bytes instead of {file.size}")


def _receive(url: str, chunks: queue.Queue[bytes | Exception | None]) -> None:
    # The queue stays full when it is no longer read, which ends this and closes the connection.
    with contextlib.closing(_answer(url)) as answer, contextlib.suppress(queue.Full):
        for chunk in answer:
            chunks.put(chunk, timeout=SILENCE_SECONDS)


def _answer(url: str) -> Generator[bytes | Exception | None, None, None]:
    """The content in chunks, then `None`; or, instead of the rest, the error that ended it."""
    try:
        timeout = (CONNECT_SECONDS, SILENCE_SECONDS)
        with requests.get(url, stream=True, timeout=timeout) as answer:
            answer.raise_for_status()
            yield from answer.iter_content(CHUNK_BYTES)
        yield None
    except Exception as error:
        yield error


def _reason(error: Exception) -> str:
    match error:
        case requests.HTTPError() if error.response is not None:
            return f"status {error.response.status_code}"
        case requests.Timeout():
            return "no answer in time"
        case requests.ConnectionError() | requests.exceptions.ChunkedEncodingError():
            return "no connection, or it broke off"
        case _:
            return str(error) or type(error).__name__


class _BadAnswerError(Exception):
    """A server sent something other than the file."""
