"""A list of files with their sizes and checksums, which identifies data of any number of files."""

import hashlib
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bclightning.data.threads import in_threads
from bclightning.errors import DataError
from bclightning.formatting import printable

# Checksums found in this process, by path, size, time of change and inode.
_known: dict[tuple[str, int, int, int], str] = {}


@dataclass(frozen=True)
class Entry:
    """One file of a manifest.

    Attributes:
        name: Path below the data folder, with slashes.
        size: Size in bytes.
        sha256: SHA-256 of the content.
    """

    name: str
    size: int
    sha256: str


def entries_of(root: Path, names: Sequence[str]) -> list[Entry]:
    """The entries of files, each read once in a process as long as it does not change.

    Args:
        root: The data folder.
        names: Paths of the files below it.

    Raises:
        DataError: A file cannot be read.
    """
    return list(in_threads(lambda name: _entry(root, name), names, "checksums"))


def manifest(entries: Sequence[Entry]) -> str:
    """A line for each file: SHA-256, size in bytes and path, with tabs between.

    Example:
        >>> manifest([Entry("cat/1.png", 312, "5ab1")]).split()
        ['5ab1', '312', 'cat/1.png']
    """
    return "".join(f"{entry.sha256}\t{entry.size}\t{entry.name}\n" for entry in entries)


def checksum(text: str) -> str:
    """SHA-256 of a manifest.

    Example:
        >>> checksum("")[:8]
        'e3b0c442'
    """
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _entry(root: Path, name: str) -> Entry:
    path = root / name
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            # A pipe would let the process wait for ever.
            raise DataError(f"{printable(str(path))} is not a regular file; remove it")
        key = (str(path), status.st_size, status.st_mtime_ns, status.st_ino)
        if key not in _known:
            with path.open("rb") as content:
                _known[key] = hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{printable(str(path))} cannot be read: {error.strerror}") from error
    return Entry(name, status.st_size, _known[key])
