"""What the workers of an attacked sweep import beforehand: their faults, and what they lack."""

import os
from pathlib import Path
from typing import Any

from campaigns import clock, faults

import bclightning.storage
from bclightning.sweep import worker as of_sweeps

FULL_DISK, WITHOUT = "CAMPAIGN_FULL_DISK", "CAMPAIGN_WITHOUT"


class NeverRaised(Exception):
    """Stands in place of an error that is then not expected."""


def without_leaving() -> None:
    """Take it for a fault that another process trains the run."""
    of_sweeps.RunInUseError = NeverRaised  # type: ignore[misc, assignment]


def without_a_sentence() -> None:
    """Take a full disk for the run's fault."""
    never: Any = lambda error, path: None  # noqa: E731
    for module in (bclightning.storage, of_sweeps):
        module.full_disk = never  # type: ignore[attr-defined]


if clock.VARIABLE in os.environ:
    clock.follow(Path(os.environ[clock.VARIABLE]))
for name in os.environ.get(WITHOUT, "").split():
    globals()[name]()
if FULL_DISK in os.environ:
    faults.inject(faults.disk_full, int(os.environ[FULL_DISK]), lasting=True)
