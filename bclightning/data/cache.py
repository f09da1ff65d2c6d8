"""Preprocessed arrays on disk, keyed by everything that they depend on."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bclightning.errors import UserError
from bclightning.storage import TEMPORARY_SUFFIX, flush_folder, full_disk

Fill = Callable[[npt.NDArray[Any]], None]


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
    makes another file. A file that is damaged, or not an array of this shape and dtype, is
    computed again. Several processes that need the same array compute it once.

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
                    _make(path, shape, dtype, fill)
    except OSError as error:
        raise full_disk(error, path) or UserError(
            f"the cache {path} cannot be written ({error.strerror}); "
            "give a folder that can with --data.cache_dir DIR"
        ) from error
    # Copy-on-write, since torch has no read-only tensors.
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def _is_whole(path: Path, shape: tuple[int, ...], dtype: str) -> bool:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return array.shape == shape and array.dtype == np.dtype(dtype)


def _make(path: Path, shape: tuple[int, ...], dtype: str, fill: Fill) -> None:
    # Renamed when it is complete; the suffix marks what a killed process leaves.
    temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    temporary.unlink(missing_ok=True)
    try:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.dtype(dtype), shape=shape)
        # All of the space is allocated now, which on a full disk is an error; a mapped page that
        # cannot be written later is a signal that ends the process.
        if hasattr(os, "posix_fallocate"):  # not on macOS
            with temporary.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        fill(array)
        array.flush()
        del array
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        flush_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
