"""Standard output and error as a command needs them: there, open, and able to show any text."""

import contextlib
import os
import select
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner


@contextlib.contextmanager
def usable_streams() -> Iterator[None]:
    """Let nothing that is printed fail: not for a closed stream, nor for a character.

    What an encoding such as ASCII or a Windows code page cannot show, and a byte of a file's name
    that is no text, is printed as a backslash escape.
    """
    before = {}
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Closed by the caller. The descriptor is taken too, so that no file of ours gets it.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (stays open)
        elif hasattr(stream, "reconfigure"):
            before[stream] = stream.errors
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, errors in before.items():
            stream.reconfigure(errors=errors)


@contextlib.contextmanager
def ignore_broken_pipe() -> Iterator[None]:
    """End quietly where nobody reads what is printed, as beside ``| head``.

    Raises:
        SystemExit: With 1, as rich's tables do.
    """
    try:
        try:
            yield
        finally:
            # What is still buffered would be written when Python ends, and fail outside of this.
            sys.stdout.flush()
    except BrokenPipeError:
        if not _stdout_closed():
            # Another pipe than the output.
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None


def _stdout_closed() -> bool:
    """Whether the output is a pipe whose other end is closed."""
    if not hasattr(select, "poll"):
        # Windows; the command has printed into a pipe, and hardly into another one.
        return True
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


@contextlib.contextmanager
def loading(what: str = "loading PyTorch ...") -> Iterator[None]:
    """Show on a terminal that something slow begins, until it has ended; elsewhere nothing.

    It goes to standard error, and takes nothing that others print.
    """
    console = Console(stderr=True)
    if not console.is_interactive:
        yield
        return
    with Live(
        Spinner("dots", what),
        console=console,
        transient=True,
        refresh_per_second=5,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield
