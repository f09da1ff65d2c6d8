"""Studies behind a server of ours, for machines that share no database: `bcl storage FILE`.

The server is one process that owns an SQLite file, and does one thing at a time for all. Trials go
through Optuna's gRPC proxy; the sweep's lock, which that one has not, is a call that stays open as
long as the lock is held, and so falls with its holder.
"""

import contextlib
import os
import queue
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import optuna
import sqlalchemy
from optuna.storages import GrpcStorageProxy

from bclightning.errors import MachineError, UserError
from bclightning.sweep import optuna_private
from bclightning.sweep.databases import LOCK_SECONDS, SqliteStorage
from bclightning.sweep.storages import FORMS, Passing, Storage, printable_reason, sqlite_url
from bclightning.vocabulary import DEFAULT_PORT

# How long whoever begins waits for the server.
READY_SECONDS = 10.0

# The call that holds a lock. The first message names it; what follows asks whether it is held.
_SERVICE, _HOLD = "bclightning.Sweep", "Hold"
_HELD = b"held"

# A coordinator uses two threads of the server at most, and one of them only while it has the lock.
_THREADS = 512

# Either side notices within a minute that the other's machine is gone.
_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)

_PASSING = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)


class RemoteStorage(Storage):
    """A storage server, on which any number of coordinators may work.

    Args:
        url: ``grpc://HOST:PORT``.
        name: The sweep's name.

    Raises:
        UserError: The server cannot be reached.
    """

    def __init__(self, url: sqlalchemy.URL, name: str) -> None:
        if not url.host or url.database:
            raise UserError(FORMS)
        port = url.port or DEFAULT_PORT
        super().__init__(f"grpc://{url.host}:{port}")
        self._name = name
        proxy = optuna_private.without_warning(GrpcStorageProxy)(host=url.host, port=port)
        self.optuna = self._proxy = proxy
        self._channel = grpc.insecure_channel(f"{url.host}:{port}", options=_KEEPALIVE)
        self._hold = self._channel.stream_stream(f"/{_SERVICE}/{_HOLD}")
        try:
            proxy.wait_server_ready(timeout=READY_SECONDS)
        except ConnectionError as error:
            self.close()
            raise MachineError(
                f"no storage server answers at {self.shown}; start one there: "
                f"bcl storage FILE --host 0.0.0.0 --port {port}"
            ) from error

    @contextlib.contextmanager
    def lock(self) -> Iterator[Callable[[], None]]:
        """Hold the sweep's lock, which the server keeps."""
        who = f"process {os.getpid()} on {socket.gethostname()}"
        messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        messages.put(f"{self._name}\n{who}".encode())
        call = self._hold(iter(messages.get, None))

        def check() -> None:
            messages.put(b"")
            next(call)

        try:
            answer: bytes = next(call)
            if answer != _HELD:
                raise Passing(
                    f"the sweep's lock is held by {answer.decode()}; if that hangs, end it"
                )
            yield check
        finally:
            # The server lets go when it has read the end.
            messages.put(None)
            with contextlib.suppress(grpc.RpcError):
                for _ in call:
                    pass

    def passes(self, error: Exception) -> bool:
        """Whether the server is not there just now."""
        return isinstance(error, grpc.RpcError) and error.code() in _PASSING

    def translated(self, error: Exception) -> Exception:
        """The error to raise."""
        if isinstance(error, grpc.RpcError) and not self.passes(error):
            return MachineError(
                f"the storage server {self.shown} cannot do what it is asked to: "
                f"{printable_reason(error.details())}"
            )
        return super().translated(error)

    def reason(self, error: Exception) -> str:
        """Why the server is not there."""
        if isinstance(error, grpc.RpcError):
            return printable_reason(error.details())
        return super().reason(error)

    def close(self) -> None:
        """Close the connections."""
        self._proxy.close()
        self._channel.close()


class _Locks:
    """The locks of sweeps, by name."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._holders: dict[str, str] = {}

    def hold(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Hold a lock until the messages end, as they do when their sender dies."""
        name, _, who = next(messages).decode().partition("\n")
        lock = self._locks[name]
        if not lock.acquire(timeout=LOCK_SECONDS):
            yield self._holders.get(name, "another coordinator").encode()
            return
        try:
            self._holders[name] = who
            if context.is_active():
                yield _HELD
                for _ in messages:
                    yield _HELD
        finally:
            lock.release()


class _OneAtATime:
    """Does one thing at a time with a storage: SQLite has no locks for single rows."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._storage, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                return method(*args, **kwargs)

        return call


@contextlib.contextmanager
def served(file: str | Path, host: str, port: int) -> Iterator[None]:
    """Serve an SQLite file to coordinators on other machines until the block ends.

    Args:
        file: The file, which is made if it does not exist; it may hold any number of sweeps.
        host: Address to listen at; ``0.0.0.0`` for all of this machine's.
        port: Port to listen at.

    Raises:
        UserError: The file is in use or cannot be read, or the port is taken.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = SqliteStorage(sqlalchemy.make_url(sqlite_url(file)), str(file), create=True)
    try:
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="storage")
        locks = _Locks()
        handlers = {_HOLD: grpc.stream_stream_rpc_method_handler(locks.hold)}
        # Without the last option two servers could listen at one port, each on a file of its own.
        server = grpc.server(pool, options=[*_KEEPALIVE, ("grpc.so_reuseport", 0)])
        optuna_private.serve_storage(_OneAtATime(storage.optuna), server)
        try:
            server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise MachineError(
                f"nothing can be served at {host}:{port}: the port is in use, or the address is "
                "not this machine's"
            ) from error
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))
        server.start()
        try:
            yield
        finally:
            server.stop(1.0).wait()
    finally:
        storage.close()
