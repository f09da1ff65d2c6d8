"""Where a sweep's studies are kept: an SQLite file, a PostgreSQL database, or a server of ours.

A storage answers three questions beside keeping trials: who else may work on them now (`lock`), is
a fault one that passes (then it is waited for), and what is the truth to tell about one that does
not.
"""

import abc
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import optuna
import sqlalchemy
from optuna.storages import BaseStorage

from bclightning.errors import MachineError, UserError
from bclightning.formatting import duration, printable
from bclightning.storage import expanded

# How long a storage that does not answer is waited for, and how often that is said.
WAIT_SECONDS = 600.0
NOTICE_SECONDS = 60.0

# Pauses between attempts: the first follows at once, for a connection that was cut.
_PAUSES = (0.1, 0.5, 1.0, 2.0, 5.0)

FORMS = (
    "--storage must be postgresql+psycopg://USER:PASSWORD@HOST/DATABASE, grpc://HOST:PORT or "
    "sqlite:///FILE"
)

Result = TypeVar("Result")


class Passing(Exception):
    """A fault that passes by itself, and is waited for; the message is the reason."""


class Storage(abc.ABC):
    """A storage of studies that is open.

    Attributes:
        optuna: Optuna's handle.
        shown: The storage's URL without a password.
        exclusive: Whether nobody else works on it, so that a trial that is running and not here
            belongs to a process that has ended.
        notify: Called with a sentence while the storage is waited for, and when it answers again.
    """

    optuna: BaseStorage
    exclusive = False

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.notify: Callable[[str], None] = _say_nothing
        self.wait_seconds = WAIT_SECONDS
        self._waits = False

    @abc.abstractmethod
    def lock(self) -> AbstractContextManager[Callable[[], None]]:
        """Hold the sweep's lock, which falls when its holder dies or is cut off.

        Returns:
            What to call before a change that must not be made twice: it raises a passing error
            where the lock was lost, as while this machine was suspended.

        Raises:
            Passing: Somebody else has held it for long; the message says who.
        """

    @abc.abstractmethod
    def passes(self, error: Exception) -> bool:
        """Whether an error of `optuna` is one that passes, as while a database restarts."""

    @abc.abstractmethod
    def close(self) -> None:
        """Let others have the storage."""

    def patiently(self, action: Callable[[], Result]) -> Result:
        """Do something with the storage; wait for the storage where it does not answer.

        Args:
            action: What to do. It is done again from the start after a fault that passes, so a
                part of it that was done already must not be done twice.

        Raises:
            UserError: The storage refuses, is damaged, or has not answered for ten minutes.
        """
        if self._waits:
            # Whoever holds a lock meanwhile may have lost it: all of what it began is done again.
            return action()
        began, said, attempt = time.monotonic(), 0.0, 0
        self._waits = True
        try:
            while True:
                try:
                    result = action()
                except Exception as error:
                    reason = self._passing(error)
                    waited = time.monotonic() - began
                    if reason is None:
                        raise self.translated(error) from error
                    if waited > self.wait_seconds:
                        raise MachineError(self._given_up(reason, waited)) from error
                    if attempt and (not said or time.monotonic() - said > NOTICE_SECONDS):
                        said = time.monotonic()
                        self.notify(f"waiting for the storage {self.shown} ({reason})")
                    time.sleep(_PAUSES[min(attempt, len(_PAUSES) - 1)])
                    attempt += 1
                else:
                    if said:
                        self.notify(f"the storage {self.shown} answers again")
                    return result
        finally:
            self._waits = False

    @contextlib.contextmanager
    def impatient(self) -> Iterator[None]:
        """Let `patiently` give up at once, for whoever is asked to stop."""
        before, self.wait_seconds = self.wait_seconds, 0.0
        try:
            yield
        finally:
            self.wait_seconds = before

    def translated(self, error: Exception) -> Exception:
        """The error to raise: one sentence, without a password, for what the user can act on."""
        if isinstance(error, Passing):
            return MachineError(self._given_up(str(error), 0.0))
        if not isinstance(error, _DATABASE_ERRORS):
            return error
        if self.passes(error):
            return MachineError(self._given_up(self.reason(error), 0.0))
        return MachineError(f"the storage {self.shown} cannot be used: {self.reason(error)}")

    def reason(self, error: Exception) -> str:
        """What is wrong, in the database's words."""
        cause = getattr(error, "orig", None) or error.__cause__ or error
        return printable_reason(getattr(cause, "orig", None) or cause)

    def _passing(self, error: Exception) -> str | None:
        """The reason of a fault that passes; ``None`` for another one."""
        if isinstance(error, Passing):
            return str(error)
        if not isinstance(error, UserError) and self.passes(error):
            return self.reason(error)
        return None

    def _given_up(self, reason: str, waited: float) -> str:
        since = f" for {duration(waited)}" if waited >= 1 else ""
        return (
            f"the storage {self.shown} cannot be used{since} ({reason}); nothing is lost: the same "
            "command resumes the sweep"
        )


_DATABASE_ERRORS = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError)


def open_storage(storage: str, name: str, create: bool = True) -> Storage:
    """Open a storage.

    Args:
        storage: Its URL.
        name: The sweep's name.
        create: Whether to make what is not there yet; a mere look does not.

    Raises:
        UserError: The URL is none of a storage, or the storage cannot be used, or is in use, or
            does not exist and is not to be made.
    """
    from bclightning.sweep.databases import PostgresqlStorage, SqliteStorage

    try:
        url = sqlalchemy.make_url(storage)
        if url.drivername == "grpc":
            from bclightning.sweep.remote import RemoteStorage

            return RemoteStorage(url, name)
        if not url.database:
            raise ValueError
        match url.get_backend_name():
            case "sqlite":
                return SqliteStorage(url, name, create)
            case "postgresql":
                url.get_dialect().import_dbapi()
                return PostgresqlStorage(url, name, create)
        raise ValueError
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, ValueError) as error:
        raise UserError(FORMS) from error
    except ImportError as error:
        extra = "grpc" if error.name == "grpc" else "postgresql"
        write = "" if extra == "grpc" else ", and write the URL as postgresql+psycopg://..."
        raise UserError(
            f"the storage needs {error.name}, which is not installed: "
            f"pip install 'bclightning[{extra}]'{write}"
        ) from error


def sqlite_url(path: str | os.PathLike[str]) -> str:
    """The URL of an SQLite file, whatever characters its path has.

    Example:
        >>> sqlite_url("runs/100%/a#b/storage.db")
        'sqlite:///runs/100%25/a%23b/storage.db'
    """
    return f"sqlite:///{quote(os.fspath(path))}"


def sqlite_file(storage: str) -> Path | None:
    """The file that a URL names; ``None`` if it is not one of SQLite.

    Example:
        >>> sqlite_file("sqlite:///runs/a%23b/storage.db"), sqlite_file("grpc://host:13000")
        (PosixPath('runs/a#b/storage.db'), None)
    """
    try:
        url = sqlalchemy.make_url(storage)
    except sqlalchemy.exc.ArgumentError:
        return None
    if not url.drivername.startswith("sqlite") or not url.database:
        return None
    return expanded(url.database)


@contextlib.contextmanager
def damage_as_user_error(shown: str) -> Iterator[None]:
    """Turn whatever goes wrong with the content of a storage into one sentence.

    Raises:
        UserError: Something in it has not the form in which a sweep writes it.
    """
    try:
        yield
    except (UserError, *_DATABASE_ERRORS, Passing):
        raise
    except Exception as error:
        raise MachineError(damaged(shown, f"{type(error).__name__}: {error}")) from error


def damaged(shown: str, reason: str) -> str:
    """What is true of a storage whose content cannot be read."""
    return (
        f"the storage {shown} is damaged ({printable_reason(reason)}): restore a copy "
        "of it, or start the sweep under another name; the runs that it trained are intact in "
        "their folders"
    )


def printable_reason(error: object) -> str:
    """An error's text in one line."""
    return printable(" ".join(str(error).split()))


def _say_nothing(sentence: str) -> None:
    pass
