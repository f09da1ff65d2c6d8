"""`bcl storage`: serve an SQLite file to sweeps on several machines, without a database."""

import argparse
import time

from bclightning.cli.sweep import positive
from bclightning.errors import UserError
from bclightning.runs.interrupt import interruptible
from bclightning.vocabulary import DEFAULT_PORT

DESCRIPTION = (
    "Serve a file of sweeps to several machines, where no PostgreSQL can be installed: bcl sweep "
    "FILE --storage grpc://HOST:PORT. Whoever reaches the port can change what is in the file, so "
    "serve it in a network that you trust, or through an SSH tunnel."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("file", metavar="FILE", help="SQLite file, made if it does not exist")
    parser.add_argument(
        "--host",
        default="localhost",
        help="address to listen at, 0.0.0.0 for all of this machine's (default: localhost)",
    )
    parser.add_argument(
        "--port",
        type=positive,
        default=DEFAULT_PORT,
        metavar="N",
        help=f"port (default: {DEFAULT_PORT})",
    )


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        UserError: The file is in use, or the port is taken, or gRPC is not installed.
        Interrupted: The server was stopped.
    """
    try:
        from bclightning.sweep.remote import served
    except ImportError as error:
        raise UserError(
            "a storage server needs grpc, which is not installed: pip install 'bclightning[grpc]'"
        ) from error
    with interruptible(), served(options.file, options.host, options.port):
        print(f"serving {options.file} at grpc://{options.host}:{options.port}", flush=True)
        while True:
            # Until a signal; Windows has no call that waits for one alone.
            time.sleep(60)
