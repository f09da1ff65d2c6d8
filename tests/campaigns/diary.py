"""What was trained when, and by whom, in the order in which it was."""

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from bclightning.runs.checkpoint import RunCheckpoint

VARIABLE = "CAMPAIGN_DIARY"


def callback(pause: float) -> dict[str, Any]:
    """A diary among the callbacks of a recipe."""
    return {"class_path": f"{__name__}.Diary", "init_args": {"pause": pause}}


class Diary(Callback):
    """Writes down each epoch that begins, and makes it last.

    Args:
        pause: Seconds that an epoch takes at least.
    """

    def __init__(self, pause: float) -> None:
        self._pause = pause

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        (checkpoint,) = (c for c in trainer.callbacks if isinstance(c, RunCheckpoint))
        run = Path(checkpoint.last_path).parents[1].name
        line = f"{run} {trainer.current_epoch} {os.getpid()}\n"
        # One system call, so that lines of several processes do not mix.
        file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)
        time.sleep(self._pause)


def entries(path: Path) -> list[tuple[str, str, str]]:
    """Run, epoch and process of each epoch that began."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [tuple(line.split()) for line in lines]  # type: ignore[misc]


def repeated(path: Path) -> list[str]:
    """The epochs that were begun again, once for each time, by the names of their runs."""
    counts = Counter((run, epoch) for run, epoch, _ in entries(path))
    return [f"{run} {epoch}" for (run, epoch), count in counts.items() for _ in range(count - 1)]


def by_turns(path: Path) -> list[str]:
    """The runs that a process went on with after another one had them."""
    before: dict[str, list[str]] = {}
    found = set()
    for run, _, process in entries(path):
        processes = before.setdefault(run, [])
        if process in processes[:-1]:
            found.add(run)
        if process not in processes:
            processes.append(process)
    return sorted(found)
