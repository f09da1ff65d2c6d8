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


# What the present block of `interruptible` was asked, until the block ends.
_asked: Interrupted | None = None


def interruption_of(error: BaseException) -> Interrupted | None:
    """The stop that an error comes from; `None` where it comes from something else.

    A library that a signal meets in the midst of its work may fail in what it then cleans up, and
    raise that second error: `torch.save` does. The stop is in the context of such an error, or is
    lost where it went through code that is not Python.

    Args:
        error: What was raised.

    Example:
        >>> try:
        ...     try:
        ...         raise Interrupted(15)
        ...     finally:
        ...         raise RuntimeError("unexpected pos 64 vs 0")
        ... except RuntimeError as error:
        ...     interruption_of(error)
        Interrupted('SIGTERM')
    """
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if isinstance(one, Interrupted):
            return one
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            pending += [one.__cause__, one.__context__]
    return _asked


def stop_if_asked() -> None:
    """Stop where a stop was asked for and did not come through.

    A bare ``except:`` takes it for an error of its own, and Python drops what a finalizer raises.

    Raises:
        Interrupted: The process was asked to stop.
    """
    if _asked is not None:
        raise _asked


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first SIGINT or SIGTERM into `Interrupted`, and ignore those that follow.

    A second Ctrl-C would otherwise break the clean-up that the first one started. Outside the main
    thread signals cannot be caught, and the block runs without this.

    Raises:
        Interrupted: The block was asked to stop, whatever it raised instead.
    """
    global _asked

    def stop(number: int, frame: FrameType | None) -> None:
        global _asked
        for other in previous:
            signal.signal(other, signal.SIG_IGN)
        _asked = Interrupted(number)
        raise _asked

    previous: dict[int, signal.Handlers | object] = {}
    outer, _asked = _asked, None
    try:
        for caught in (signal.SIGINT, signal.SIGTERM):
            previous[caught] = signal.getsignal(caught)
            signal.signal(caught, stop)
    except ValueError:
        previous.clear()
    try:
        yield
    except BaseException as error:
        interruption = interruption_of(error)
        if interruption is None or interruption is error:
            raise
        raise interruption from None
    finally:
        _asked = outer
        for number, handler in previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
