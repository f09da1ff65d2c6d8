"""Studies in an SQLite file, for one coordinator, or in a PostgreSQL database, for any number."""

import contextlib
import hashlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import filelock
import optuna
import sqlalchemy
from optuna.storages import RDBStorage, get_storage

from bclightning.errors import MachineError, UserError
from bclightning.storage import full_disk
from bclightning.sweep.storages import Passing, Storage, damaged, sqlite_file, sqlite_url

# How long a coordinator's lock is waited for before it is said who holds it.
LOCK_SECONDS = 20.0

# Either side notices within a minute that the other's machine is gone.
_KEEPALIVES = {"idle": 30, "interval": 10, "count": 3}

# What PostgreSQL answers when a lock was not to be had in time.
_LOCK_NOT_AVAILABLE = "55P03"

# What SQLite answers where a file is none of its own, or has not the tables that it had.
_DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR")

# What SQLAlchemy raises where a connection breaks; the last where Optuna, which takes that for a
# query that was too long, asks once more in the transaction that broke.
_BROKEN = (
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.PendingRollbackError,
)

# A table that Optuna makes last of all.
_LAST_TABLE = "alembic_version"


class SqliteStorage(Storage):
    """An SQLite file, which one coordinator at a time may open.

    Raises:
        UserError: It is in use, or is no database, or does not exist and is not to be made.
    """

    exclusive = True

    def __init__(self, url: sqlalchemy.URL, name: str, create: bool) -> None:
        path = sqlite_file(url.render_as_string()) or Path()
        super().__init__(sqlite_url(path))
        if not create and not path.is_file():
            raise UserError(f"the sweep {name} has not started: there is no {path}")
        self._path = path
        self._file_lock = _own_file(path, name)
        try:
            with _errors_at_the_start(self):
                self._rdb = _open(sqlalchemy.make_url(self.shown), {})
                self.optuna = get_storage(self._rdb)
        except BaseException:
            self._file_lock.release()
            raise

    def lock(self) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Nothing more: the file's lock is held all the time."""
        return contextlib.nullcontext(_check_nothing)

    def passes(self, error: Exception) -> bool:
        """Whether another program, such as a backup, has the file locked."""
        return "database is locked" in str(_database_error(error))

    def translated(self, error: Exception) -> Exception:
        """The error to raise."""
        original = getattr(_database_error(error), "orig", None)
        kind = str(getattr(original, "sqlite_errorname", ""))
        if kind == "SQLITE_FULL":
            return MachineError(
                f"the disk is full: {self._path} cannot be written; free some space, and the same "
                "command resumes the sweep"
            )
        if kind.startswith(_DAMAGE):
            return MachineError(damaged(self.shown, self.reason(error)))
        return super().translated(error)

    def close(self) -> None:
        """Let another coordinator have the file."""
        self._rdb.remove_session()
        self._rdb.engine.dispose()
        self._file_lock.release()


class PostgresqlStorage(Storage):
    """A PostgreSQL database, on which any number of coordinators may work.

    Raises:
        UserError: It cannot be reached, or refuses, or has no studies and is not to have any.
    """

    def __init__(self, url: sqlalchemy.URL, name: str, create: bool) -> None:
        super().__init__(url.render_as_string())
        self._key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
        settings = _connection_settings(url)
        self._engine = sqlalchemy.create_engine(url, **settings)
        with _errors_at_the_start(self), _disposed_after_errors(self._engine):
            there = _complete(self._engine)
            if not there and not create:
                raise UserError(f"the sweep {name} has not started: {self.shown} holds no studies")
            # Coordinators that create the tables of a database at once get in each other's way.
            with contextlib.nullcontext() if there else self.lock():
                self._rdb = _open(url, settings)
            self.optuna = get_storage(self._rdb)

    @contextlib.contextmanager
    def lock(self) -> Iterator[Callable[[], None]]:
        """Hold the sweep's lock, which lies in the database.

        Raises:
            Passing: Somebody else has held it for long.
        """
        key = {"key": self._key}
        with self._engine.connect() as connection:
            # A machine that is cut off, or suspended, loses the lock within a minute.
            settings = {f"tcp_keepalives_{name}": value for name, value in _KEEPALIVES.items()}
            given = ", ".join(f"set_config('{n}', '{v}', false)" for n, v in settings.items())
            limit = f"set_config('lock_timeout', '{LOCK_SECONDS}s', true)"
            connection.execute(sqlalchemy.text(f"SELECT {given}, {limit}"))
            try:
                connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), key)
            except sqlalchemy.exc.OperationalError as error:
                if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                    raise
                connection.rollback()
                raise Passing(self._held(connection)) from error
            # The lock is the session's, and what was set for its sake ends here.
            connection.commit()

            def check() -> None:
                connection.execute(sqlalchemy.text("SELECT 1"))
                connection.commit()

            try:
                yield check
            finally:
                connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), key)
                connection.commit()

    def _held(self, connection: sqlalchemy.Connection) -> str:
        """Who holds the lock."""
        query = sqlalchemy.text(
            "SELECT application_name, pid FROM pg_locks JOIN pg_stat_activity USING (pid) "
            "WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
            "AND ((classid::bigint << 32) | objid::bigint) = :key"
        )
        holders = [
            f"{name or 'a program'} (the database's process {pid})"
            for name, pid in connection.execute(query, {"key": self._key})
        ]
        who = " and ".join(holders) or "another coordinator"
        return f"the sweep's lock is held by {who}; if that hangs, end it"

    def passes(self, error: Exception) -> bool:
        """Whether the connection broke, or the server is starting or stopping."""
        cause = _database_error(error)
        if isinstance(cause, sqlalchemy.exc.DBAPIError) and cause.connection_invalidated:
            return True
        return isinstance(cause, _BROKEN)

    def close(self) -> None:
        """Close the connections."""
        self._rdb.remove_session()
        self._rdb.engine.dispose()
        self._engine.dispose()


def _check_nothing() -> None:
    """The lock of a file cannot be lost."""


def _own_file(path: Path, name: str) -> filelock.BaseFileLock:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
        lock.acquire(timeout=2)
    except filelock.Timeout as error:
        raise UserError(
            f"the sweep {name} is running already, on {path}; to work on it from several "
            "terminals or machines, give each of them the --storage postgresql+psycopg://... or "
            "grpc://..."
        ) from error
    except OSError as error:
        raise full_disk(error, path) or MachineError(
            f"{path} cannot be written: {error.strerror}"
        ) from error
    return lock


@contextlib.contextmanager
def _errors_at_the_start(storage: Storage) -> Iterator[None]:
    """Turn errors into a sentence at once: who begins is there to read it, and need not wait.

    Raises:
        UserError: The storage cannot be used.
    """
    try:
        yield
    except UserError:
        raise
    except RuntimeError as error:
        # What Optuna says of tables of another version.
        said = " ".join(str(error).split())
        raise MachineError(f"the storage {storage.shown} cannot be used: {said}") from error
    except (AssertionError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise MachineError(damaged(storage.shown, f"{type(error).__name__}: {error}")) from error
    except Exception as error:
        raise storage.translated(error) from error


@contextlib.contextmanager
def _disposed_after_errors(engine: sqlalchemy.Engine) -> Iterator[None]:
    try:
        yield
    except BaseException:
        engine.dispose()
        raise


def _open(url: sqlalchemy.URL, settings: dict[str, Any]) -> RDBStorage:
    return RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=settings)


def _connection_settings(url: sqlalchemy.URL) -> dict[str, Any]:
    # A server that vanished is noticed within a minute, and the others are told who is who.
    arguments: dict[str, Any] = {
        "connect_timeout": 10,
        **{f"keepalives_{name}": value for name, value in _KEEPALIVES.items()},
        "application_name": f"bcl sweep, process {os.getpid()} on {socket.gethostname()}"[:63],
    }
    given = {key: value for key, value in arguments.items() if key not in url.query}
    # Connections are tested before use, since a sweep outlives restarts of its database.
    return {"pool_pre_ping": True, "connect_args": given}


def _complete(engine: sqlalchemy.Engine) -> bool:
    """Whether all of Optuna's tables are there."""
    if not sqlalchemy.inspect(engine).has_table(_LAST_TABLE):
        return False
    with engine.connect() as connection:
        query = sqlalchemy.text(f"SELECT count(*) FROM {_LAST_TABLE}")
        return bool(connection.execute(query).scalar())


def _database_error(error: BaseException) -> BaseException:
    """The database's error behind one of Optuna's."""
    if isinstance(error, optuna.exceptions.StorageInternalError) and error.__cause__ is not None:
        return error.__cause__
    return error
