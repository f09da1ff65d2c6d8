"""Files that are complete or do not exist: a temporary file in the same folder, fsync, replace."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from bclightning.errors import MachineError, UserError

TEMPORARY_SUFFIX = ".part"


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file that replaces `path` when the block ends without an error.

    A reader of `path` sees the old content or the new, never a part of it, even after a kill or a
    loss of power: the content and then the folder's entry are flushed to the disk.

    Args:
        path: The file to write; its folder must exist.
        mode: ``"wb"`` or ``"w"`` (UTF-8).

    Raises:
        MachineError: The disk is full, or the file cannot be written. The old content is intact
            and no temporary file is left.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with replacing(folder / "record.json", "w") as file:
        ...     _ = file.write("{}")
        >>> [entry.name for entry in folder.iterdir()]
        ['record.json']
    """
    path = Path(path)
    encoding = None if "b" in mode else "utf-8"
    try:
        descriptor, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX, dir=path.parent
        )
        try:
            with os.fdopen(descriptor, mode, encoding=encoding) as file:
                # mkstemp's files are private, and this one replaces an ordinary file.
                os.fchmod(file.fileno(), 0o666 & ~_umask())
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
        flush_folder(path.parent)
    except OSError as error:
        raise full_disk(error, path) or _unwritable(error, path) or error from error


def checked_target(path: str | os.PathLike[str]) -> Path:
    """The path of a file to write, checked before any work is done.

    Args:
        path: The path.

    Raises:
        UserError: The path is a folder, or its folder does not exist.

    Example:
        >>> checked_target("scores.csv")
        PosixPath('scores.csv')
        >>> checked_target("no-such-folder/scores.csv")
        Traceback (most recent call last):
        bclightning.errors.UserError: there is no folder no-such-folder for scores.csv
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{str(path)!r} is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} for {path.name}")
    return path


def _unwritable(error: OSError, path: Path) -> MachineError | None:
    reasons = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR)
    if error.errno not in reasons:
        return None
    return MachineError(f"{path} cannot be written: {error.strerror}")


class DiskFullError(MachineError):
    """The disk has no space for a file."""


def full_disk(error: OSError, path: Path) -> DiskFullError | None:
    """The error for the user if `error` means that the disk is full; `None` for other errors."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    return DiskFullError(
        f"the disk is full: {path} was not written and its older content is intact; "
        "free some space and start again"
    )


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Replace the content of `path` by `text` (UTF-8), completely or not at all."""
    with replacing(path, "w") as file:
        file.write(text)


def flush_folder(folder: str | os.PathLike[str]) -> None:
    """Flush a folder's entries to the disk, so that a finished rename survives a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    # The mask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
