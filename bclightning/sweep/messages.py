"""What a coordinator and its workers say to each other."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Task:
    """A run to make, or to go on with.

    Attributes:
        arguments: The command line of `bcl fit` for a new run.
        folder: The run's folder.
        token: Tells the sweep's runs from those of another one of the same name.
        wait: Whether each epoch waits to be told to go on.
    """

    arguments: tuple[str, ...]
    folder: str
    token: str
    wait: bool


@dataclass(frozen=True)
class Ready:
    """The worker has imported what it needs."""


@dataclass(frozen=True)
class Epoch:
    """An epoch has ended.

    Attributes:
        number: The epoch, counted from 1.
        error: Its validation error in percent.
    """

    number: int
    error: float


@dataclass(frozen=True)
class Done:
    """A run has ended well.

    Attributes:
        record: Its record as plain data.
    """

    record: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """A run has failed, and would fail again.

    Attributes:
        reason: Why, in a sentence.
    """

    reason: str


@dataclass(frozen=True)
class Stopped:
    """A run was stopped by what is wrong with the machine, or by a signal, and can go on.

    Attributes:
        reason: What the user can mend; empty after a signal.
    """

    reason: str = ""
