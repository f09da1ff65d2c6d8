"""Signals end a block in order, once."""

import os
import signal

import pytest

from bclightning.runs.interrupt import Interrupted, interruptible


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [(signal.SIGTERM, signal.SIGINT, 143), (signal.SIGINT, signal.SIGINT, 130)],
)
def test_a_second_signal_does_not_break_what_the_first_began(first, second, code):
    steps = []

    def work():
        try:
            os.kill(os.getpid(), first)
            steps.append("not reached")
        finally:
            os.kill(os.getpid(), second)
            steps.append("cleaned up")

    with pytest.raises(Interrupted) as stopped, interruptible():
        work()
    assert steps == ["cleaned up"]
    assert stopped.value.exit_code == code


def test_the_handlers_of_before_come_back():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted), interruptible():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
