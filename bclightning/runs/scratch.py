"""A folder for files that are written and tested before they take their places."""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

from bclightning.errors import MachineError
from bclightning.storage import full_disk

_PREFIX = ".export-"

# Held as long as its process lives: what is not held was left behind by one that was killed.
_LOCK = ".lock"

# A folder without a lock: of a process that was killed before it had one, or of an older version.
_MAX_SECONDS_WITHOUT_LOCK = 3600.0


@contextlib.contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """A folder beside a file that is to be written, which is removed when the block ends.

    A process that is killed leaves its folder behind; the next one that writes into the same place
    removes it.

    Args:
        target: The file to write.

    Raises:
        MachineError: The disk is full, or nothing can be written there, also within the block; the
            message names the target.

    Example:
        >>> target = Path(tempfile.mkdtemp()) / "model.onnx"
        >>> with scratch_folder(target) as place:
        ...     _ = (place / "model.onnx").write_bytes(b"a graph")
        ...     _ = (place / "model.onnx").rename(target)
        >>> [entry.name for entry in target.parent.iterdir()]
        ['model.onnx']
    """
    try:
        _remove_leftovers(target.parent)
        place, lock = _new(target.parent)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
            lock.release()
    except (OSError, MachineError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        raise full_disk(cause, target) or MachineError(
            f"{target} cannot be written: {cause.strerror}; give another --output"
        ) from error


def _new(parent: Path) -> tuple[Path, filelock.BaseFileLock]:
    """A new folder, and its lock, which is held."""
    while True:
        place = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        lock = filelock.FileLock(place / _LOCK)
        try:
            lock.acquire(timeout=0)
        except (filelock.Timeout, FileNotFoundError):
            continue  # before it was locked, another process took the folder for a leftover
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        if (place / _LOCK).exists():
            return place, lock
        lock.release()


def leftovers(parent: Path) -> list[Path]:
    """The folders that processes which do not live any more left in a folder."""
    return list(_abandoned(parent))


def _remove_leftovers(parent: Path) -> None:
    """Remove the folders of processes that do not live any more."""
    for place in _abandoned(parent):
        # What cannot be removed, as another user's, is in nobody's way.
        with contextlib.suppress(OSError):
            shutil.rmtree(place)


def _abandoned(parent: Path) -> Iterator[Path]:
    """Folders that no living process holds; each is held while the caller looks at it."""
    for place in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, filelock.Timeout):
            if place.is_symlink() or not place.is_dir():
                continue
            if not (place / _LOCK).exists():
                if time.time() - place.stat().st_mtime > _MAX_SECONDS_WITHOUT_LOCK:
                    yield place
                continue
            with filelock.FileLock(place / _LOCK).acquire(timeout=0):
                yield place
