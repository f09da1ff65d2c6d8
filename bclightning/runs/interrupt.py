"""Ctrl-C and SIGTERM end a run in order, with the exit code that shells expect."""

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType


class Interrupted(BaseException):
    """The run was asked to stop.

    Attributes:
        exit_code: 130 after Ctrl-C, 143 after SIGTERM.
        signal_name: ``SIGINT`` or ``SIGTERM``.
        folder: Folder of the run that was stopped, which can be resumed; ``None`` if there is none.
        epochs: Number of its finished epochs.
        sweep: Whether it was a sweep that was stopped.
    """

    folder: Path | None = None
    epochs: int = 0
    sweep: bool = False

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number
        self.signal_name = signal.Signals(number).name
        super().__init__(self.signal_name)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into `Interrupted`, and ignore those that follow.

    A second Ctrl-C would otherwise break the clean-up that the first one started. Outside the main
    thread signals cannot be caught, and the block runs without this.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for other in previous:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)

    previous: dict[int, signal.Handlers | object] = {}
    try:
        for caught in (signal.SIGINT, signal.SIGTERM):
            previous[caught] = signal.getsignal(caught)
            signal.signal(caught, stop)
    except ValueError:
        previous.clear()
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
