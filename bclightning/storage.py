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

# What file systems answer that cannot do what they are asked: shares (SMB), VirtualBox, WSL, FUSE.
_UNSUPPORTED = (
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EBADF,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
)

# How text is written, whatever the system's own way is.
_TEXT: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace", "newline": "\n"}

# A state of the machine and no fault of the program, where a file or a folder is opened or made.
_ENVIRONMENT = (
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EMFILE,
    errno.ENFILE,
    errno.ESTALE,
)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file that replaces `path` when the block ends without an error.

    A reader of `path` sees the old content or the new, never a part of it, even after a kill or a
    loss of power: the content and then the folder's entry are flushed to the disk, where the file
    system can do that.

    Args:
        path: The file to write; its folder must exist.
        mode: ``"wb"`` or ``"w"``: UTF-8 with Unix line ends on every system, and a backslash escape
            for what UTF-8 has no code for, such as a byte in the name of an old file.

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
    text = {} if "b" in mode else _TEXT
    try:
        descriptor, name = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=TEMPORARY_SUFFIX, dir=path.parent
        )
        try:
            with os.fdopen(descriptor, mode, **text) as file:
                yield file
                flush_file(file)
            make_ordinary(name)
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
        flush_folder(path.parent)
    except OSError as error:
        raise machine_fault(error, path) or error from error


def checked_target(path: str | os.PathLike[str]) -> Path:
    """The path of a file to write, checked before any work is done.

    Args:
        path: The path; ``~`` is the user's own folder.

    Raises:
        UserError: The path is a folder, or its folder does not exist.

    Example:
        >>> checked_target("scores.csv")
        PosixPath('scores.csv')
        >>> checked_target("no-such-folder/scores.csv")
        Traceback (most recent call last):
        bclightning.errors.UserError: there is no folder no-such-folder for scores.csv
    """
    path = expanded(path)
    if path.is_dir():
        raise UserError(f"{str(path)!r} is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} for {path.name}")
    return path


def machine_fault(error: OSError, path: Path, action: str = "written") -> MachineError | None:
    """The error for the user if `error` is a state of the machine; `None` for other errors.

    Args:
        error: The error.
        path: The file that could not be used.
        action: What could not be done with it.

    Example:
        >>> machine_fault(OSError(errno.EACCES, "Permission denied"), Path("a"), "read")
        MachineError('a cannot be read: Permission denied')
        >>> machine_fault(OSError(errno.EIO, "Input/output error"), Path("a")) is None
        True
    """
    if full := full_disk(error, path):
        return full
    if error.errno not in _ENVIRONMENT:
        return None
    return MachineError(f"{path} cannot be {action}: {error.strerror}")


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


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path as the shell reads it: ``~`` at its beginning is the user's own folder.

    Configuration files, environment variables and Python do not pass through a shell.

    Example:
        >>> expanded("data")
        PosixPath('data')
    """
    return Path(os.path.expanduser(path))


def home_expanded(value: Any) -> Any:
    """Plain data with the user's own folder for ``~/`` at the beginning of any text or path in it.

    Only with the slash, since a lone ``~`` is YAML's null.

    Example:
        >>> home_expanded({"data.root": None, "skip": ["~", "a~/b"]})
        {'data.root': None, 'skip': ['~', 'a~/b']}
    """
    match value:
        case str() if value.startswith("~/"):
            return os.path.expanduser(value)
        case Path():
            # As text: a configuration file holds no other paths.
            return str(expanded(value))
        case dict():
            return {key: home_expanded(entry) for key, entry in value.items()}
        case list():
            return [home_expanded(entry) for entry in value]
    return value


def make_ordinary(path: str | os.PathLike[str]) -> None:
    """Give a private temporary file the permissions of an ordinary one, where that can be done."""
    with contextlib.suppress(OSError):
        os.chmod(path, 0o666 & ~_umask())


def flush_file(file: IO[Any]) -> None:
    """Flush what was written to a file to the disk, as far as the file system can do that."""
    file.flush()
    _flush(file.fileno())


def flush_folder(folder: str | os.PathLike[str]) -> None:
    """Flush a folder's entries to the disk, so that a finished rename survives a loss of power.

    Where folders cannot be opened (Windows) or flushed (shares), that is left to the system.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return
        raise
    try:
        _flush(descriptor)
    finally:
        os.close(descriptor)


def _flush(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def _umask() -> int:
    # The mask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask
