"""The messages between a coordinator and its workers."""

from dataclasses import dataclass, field
from typing import Any

from bclightning.runs.allowed_code import AllowedCode


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker process is started with.

    Attributes:
        number: Number of the worker, from 0.
        threads: Number of torch's threads.
        log: File for what runs print.
        environment: The coordinator's environment variables. Workers are forked from a process that
            may have been started before some of them were set.
    """

    number: int
    threads: int
    log: str
    environment: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class RunRequest:
    """A run to start or to resume.

    Attributes:
        recipe: Content of the recipe that all runs of the sweep start from.
        options: Options of this run, by dotted name.
        folder: Folder of the run.
        sweep_id: Tells the runs of this sweep from those of another one of the same name.
        monitor: Metric to report after each epoch.
        wait: Whether the worker waits after each epoch for the decision to prune.
        allowed: What recipe and options may name; all if ``None``.
        files: Checksums of the files that the options name, which must not have changed.
    """

    recipe: dict[str, Any]
    options: dict[str, Any]
    folder: str
    sweep_id: str
    monitor: str
    wait: bool
    allowed: AllowedCode | None = None
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ready:
    """The worker has imported what it needs."""


@dataclass(frozen=True)
class Epoch:
    """An epoch has ended.

    Attributes:
        number: Number of the epoch, from 1.
        value: Value of the monitored metric.
    """

    number: int
    value: float


@dataclass(frozen=True)
class Done:
    """A run has ended well.

    Attributes:
        record: The run's record as plain data.
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
    """A run was stopped by a signal or by a fault of the machine, and can be resumed.

    Attributes:
        reason: The fault and what to do about it; empty after a signal.
    """

    reason: str = ""


@dataclass(frozen=True)
class Busy:
    """A run is being trained by another process.

    Attributes:
        reason: That, in a sentence.
    """

    reason: str
