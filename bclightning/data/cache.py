"""Preprocessed arrays on the disk, keyed by everything that they depend on."""

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
    """A memory-mapped array that is made once and found again.

    The file's name holds a hash of `depends_on`, of shape and dtype: whatever changes one of them
    makes another file. A file that is not a complete array of this kind is made
    again. Several
    processes make it once.

    Args:
        folder: The cache folder, made if need be.
        name: What the array is, for people who look into the folder.
        depends_on: Plain data: checksums, parameters, a version of the code that fills.
        shape: The array's shape.
        dtype: Its dtype, as NumPy names it.
        fill: Writes the content into a memory-mapped array.

    Returns:
        A tensor over the mapped file. It is not to be written to: the file is mapped for reading.

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
            "say where it can with --data.cache_dir DIR"
        ) from error
    # Copy-on-write, since torch has no read-only tensors: a write by mistake stays in memory.
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def _is_whole(path: Path, shape: tuple[int, ...], dtype: str) -> bool:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return array.shape == shape and array.dtype == np.dtype(dtype)


def _make(path: Path, shape: tuple[int, ...], dtype: str, fill: Fill) -> None:
    # Written in place and renamed when whole; a name of its own kind tells what a kill left.
    temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
    temporary.unlink(missing_ok=True)
    try:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.dtype(dtype), shape=shape)
        # All of its space now: on a full disk a mapped page that cannot be written is a signal
        # that ends the process, where this is an error.
        if hasattr(os, "posix_fallocate"):  # macOS has none
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
