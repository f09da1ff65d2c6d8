"""What of a folder of runs can be deleted without anything being missed, and its deletion."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bclightning.errors import MachineError, UserError
from bclightning.runs.folder import LOCK, RunFolder
from bclightning.runs.listing import (
    MAX_DEPTH,
    begun_and_empty,
    find_runs,
    folders_in,
    is_run,
    size_of,
)
from bclightning.runs.record import RunRecord
from bclightning.runs.scratch import leftovers
from bclightning.storage import TEMPORARY_SUFFIX

LAST = "last checkpoint of a finished run"
TEMPORARY = "temporary file of a killed process"
EMPTY = "run that was killed before it began"
SCRATCH = "unfinished export"

# So long after its last change, a folder is not one that a process is about to lock.
MIN_SECONDS = 3600.0


@dataclass(frozen=True)
class Removable:
    """A file or a folder that can be deleted.

    Attributes:
        path: Where it lies.
        reason: What it is.
        size: Bytes that its deletion frees.
        run: Folder of its run; ``None`` where it belongs to none.
    """

    path: Path
    reason: str
    size: int
    run: RunFolder | None = None


def removable(folder: Path) -> list[Removable]:
    """What can be deleted of the runs in a folder.

    A finished run's ``last.ckpt`` is what it would be resumed from, and it has the optimizer's
    state; testing, exporting, predicting, reproducing and warm starts use ``best.ckpt``, which
    stays. Of runs that are training, and of those that can be resumed, nothing is deleted.

    Args:
        folder: A folder of runs.

    Raises:
        UserError: There is no such folder.
    """
    found = [item for run in find_runs(folder) for item in _of_run(run)]
    found += [Removable(path, EMPTY, size_of(path), RunFolder(path)) for path in _empty(folder)]
    for place in dict.fromkeys((folder, Path.cwd())):
        found += [Removable(path, SCRATCH, size_of(path)) for path in _scratch(place)]
    return found


def _scratch(place: Path) -> list[Path]:
    """Folders of exports that were killed, which have a lock or nothing in them."""
    return [path for path in leftovers(place) if (path / LOCK).is_file() or not any(path.iterdir())]


def _of_run(run: RunFolder) -> Iterator[Removable]:
    if run.in_use() or run.checkpoints.is_symlink():
        return
    if (last := _needless_last(run)) is not None:
        yield Removable(last, LAST, last.stat().st_size, run)
    for place in (run.path, run.checkpoints):
        for path in place.glob(f".*{TEMPORARY_SUFFIX}"):
            if path.is_file() and not path.is_symlink():
                yield Removable(path, TEMPORARY, path.stat().st_size, run)


def _needless_last(run: RunFolder) -> Path | None:
    """The last checkpoint of a finished run whose best one is another file."""
    last, best = run.checkpoints / "last.ckpt", run.checkpoints / "best.ckpt"
    if last.is_symlink() or not last.is_file() or not best.is_file() or best.samefile(last):
        return None
    try:
        record = RunRecord.read(run.record)
    except UserError:
        return None
    finished = record.status == "finished" and record.best_epoch is not None
    return last if finished and best.stat().st_size > 0 else None


def _empty(folder: Path, depth: int = MAX_DEPTH) -> Iterator[Path]:
    for inner in folders_in(folder):
        if is_run(inner):
            continue
        if (inner / LOCK).is_file() and begun_and_empty(inner):
            old = time.time() - inner.stat().st_mtime > MIN_SECONDS
            if old and not RunFolder(inner).in_use():
                yield inner
        elif depth > 1:
            yield from _empty(inner, depth - 1)


def remove(item: Removable) -> bool:
    """Delete something, if it can still be deleted now that no other process can use it.

    Returns:
        Whether it is gone.

    Raises:
        MachineError: It cannot be deleted here.
    """
    try:
        if item.run is None:
            if item.path not in _scratch(item.path.parent):
                return False
            shutil.rmtree(item.path)
            return True
        if item.run.in_use():
            return False
        with item.run.lock():
            if item.reason == EMPTY:
                if not begun_and_empty(item.path):
                    return False
                shutil.rmtree(item.path)
                return True
            if item.reason == LAST and _needless_last(item.run) is None:
                return False
            with contextlib.suppress(FileNotFoundError):
                item.path.unlink()
            return True
    except OSError as error:
        raise MachineError(f"{item.path} cannot be deleted: {error.strerror}") from error
