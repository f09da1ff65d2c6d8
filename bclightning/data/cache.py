"""Preprocessed arrays on disk, keyed by everything that they depend on."""

import errno
import hashlib
import json
import logging
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import filelock
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bclightning.errors import UserError
from bclightning.storage import TEMPORARY_SUFFIX, flush_file, flush_folder, full_disk

Fill = Callable[[npt.NDArray[Any]], None]

logger = logging.getLogger(__name__)

# A cache ends with this and the CRC-32 of all that comes before: NumPy reads what it needs, and the
# content and its checksum are replaced as one. Against accidents, not against an enemy, who could
# replace the checksum too; a cryptographic one takes two to five times as long.
_TRAILER = struct.Struct("<8sI")
_MAGIC = b"BCLCRC32"

_CHUNK_BYTES = 1 << 20

# Caches verified in this process, by path, size, time of change and inode: read through once.
_verified: set[tuple[str, int, int, int]] = set()


def cached_array(
    folder: Path,
    name: str,
    depends_on: dict[str, Any],
    shape: tuple[int, ...],
    dtype: str,
    fill: Fill,
) -> Tensor:
    """A memory-mapped array that is computed once and then read from the cache.

    The file's name contains a hash of `depends_on`, shape and dtype, so a change of one of them
    makes another file. The content is verified by a checksum, once in each process. A file that is
    damaged, or not an array of this shape and dtype, is computed again, with a warning. Several
    processes that need the same array compute it once.

    Args:
        folder: The cache folder, created if it does not exist.
        name: Beginning of the file's name, for people who look into the folder.
        depends_on: Everything that the content depends on, as plain data: checksums, parameters, a
            version of the code in `fill`.
        shape: Shape of the array.
        dtype: NumPy's name of its dtype.
        fill: Function that writes the content into a memory-mapped array.

    Returns:
        A tensor over the mapped file. What is written to it stays in memory, and does not reach
        the file.

    Raises:
        UserError: The disk is full, or the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> cached_array(folder, "ones", {}, (2,), "float32", lambda array: array.fill(1))
        tensor([1., 1.])
    """
    key = json.dumps([depends_on, shape, dtype], sort_keys=True)
    path = folder / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not _is_whole(path, shape, dtype):
            with filelock.FileLock(folder / f".{path.name}.lock"):
                if not _is_whole(path, shape, dtype):
                    if path.exists():
                        logger.warning(
                            "the cache %s is damaged, or an older version's without a checksum, "
                            "and is made again",
                            path,
                        )
                    _make(path, shape, dtype, fill)
    except OSError as error:
        raise full_disk(error, path) or UserError(
            f"the cache {path} cannot be written ({error.strerror}); "
            "give a folder that can with --data.cache_dir DIR"
        ) from error
    # Copy-on-write, since torch has no read-only tensors.
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def _is_whole(path: Path, shape: tuple[int, ...], dtype: str) -> bool:
    # The checksum first: what is damaged is not parsed.
    try:
        if not _has_its_checksum(path):
            return False
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return array.shape == shape and array.dtype == np.dtype(dtype)


def _has_its_checksum(path: Path) -> bool:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        key = (str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino)
        if key in _verified:
            return True
        length = status.st_size - _TRAILER.size
        if length < 0 or file.seek(length) != length or file.read(len(_MAGIC)) != _MAGIC:
            return False
        file.seek(0)
        whole = _TRAILER.pack(_MAGIC, _checksum(file, length)) == file.read()
    if whole:
        _verified.add(key)
    return whole


def _checksum(file: IO[bytes], length: int) -> int:
    """CRC-32 of the next `length` bytes of a file."""
    checksum = 0
    while length > 0 and (chunk := file.read(min(_CHUNK_BYTES, length))):
        checksum = zlib.crc32(chunk, checksum)
        length -= len(chunk)
    return checksum


def _make(path: Path, shape: tuple[int, ...], dtype: str, fill: Fill) -> None:
    # Renamed when it is complete; the suffix marks what a killed process leaves.
    temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    temporary.unlink(missing_ok=True)
    try:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.dtype(dtype), shape=shape)
        _allocate(temporary)
        fill(array)
        array.flush()
        del array
        with temporary.open("r+b") as file:
            checksum = _checksum(file, temporary.stat().st_size)
            file.write(_TRAILER.pack(_MAGIC, checksum))
            flush_file(file)
        os.replace(temporary, path)
        flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _allocate(path: Path) -> None:
    """Allocate all of a file's space now, which on a full disk is an error.

    A mapped page that cannot be written later is a signal that ends the process.
    """
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
            else:
                return
        # macOS, Windows, and file systems that cannot do it: write what is there already.
        while chunk := file.read(_CHUNK_BYTES):
            file.seek(-len(chunk), os.SEEK_CUR)
            file.write(chunk)
