"""A PostgreSQL server of our own, by Debian's packages, that can be killed and started again."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

CLUSTER = "regress"


def installed() -> bool:
    return shutil.which("pg_virtualenv") is not None


class Server:
    """A server that goes when it is closed, or when this process ends.

    Attributes:
        address: User, password, host and port, as in a URL.
    """

    def __init__(self) -> None:
        show = 'echo "$PGUSER:$PGPASSWORD@$PGHOST:$PGPORT $PGVERSION $PG_CLUSTER_CONF_ROOT"'
        self._process = subprocess.Popen(
            ["pg_virtualenv", "-t", "sh", "-c", f"{show}; read line"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for line in self._process.stdout or ():
            if "@" in line:
                self.address, self._version, folder = line.split()
                break
        else:
            raise RuntimeError("PostgreSQL did not start")
        self._environment = {**os.environ, "PG_CLUSTER_CONF_ROOT": folder}
        with self.connection() as connection:
            (data,) = connection.execute("SHOW data_directory").fetchone()
        self._pid_file = Path(data) / "postmaster.pid"

    def connection(self) -> Any:
        # Not everybody who runs a test needs it.
        import psycopg

        return psycopg.connect(f"postgresql://{self.address}/postgres", autocommit=True)

    def new_database(self) -> str:
        """The URL of an empty database, which nobody else has."""
        name = f"test_{secrets.token_hex(4)}"
        with self.connection() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://{self.address}/{name}"

    def kill(self) -> None:
        """Kill the server as a loss of power does; it is down until it is started."""
        os.kill(int(self._pid_file.read_text().split()[0]), signal.SIGKILL)

    def kill_a_connection(self, place: int) -> None:
        """Kill the process of a connection; the server then cuts all others off, and recovers."""
        query = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'bcl sweep%'"
        with self.connection() as connection:
            pids = [pid for (pid,) in connection.execute(query)]
        with contextlib.suppress(ProcessLookupError):
            if pids:
                os.kill(pids[place % len(pids)], signal.SIGKILL)

    def stop(self) -> None:
        """Stop the server in order, whoever is connected."""
        self._control("--mode", "fast", self._version, CLUSTER, "stop")

    def start(self) -> None:
        """Start the server again; one that was killed is in its own way for a moment."""
        end = time.monotonic() + 60
        while self._control(self._version, CLUSTER, "start") != 0:
            if time.monotonic() > end:
                raise RuntimeError("PostgreSQL did not start again")
            time.sleep(0.2)

    def _control(self, *words: str) -> int:
        command = ["pg_ctlcluster", *words]
        return subprocess.run(command, env=self._environment, capture_output=True).returncode

    def close(self) -> None:
        self._process.communicate("\n")
