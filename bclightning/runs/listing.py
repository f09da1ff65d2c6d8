"""What lies in a folder of runs, read from their files: neither torch nor a network is needed."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bclightning.errors import UserError
from bclightning.runs.folder import LOCK, RunFolder, left_by_a_kill
from bclightning.runs.metrics_csv import MetricsTable
from bclightning.runs.record import RunRecord

# A run lies at RUNS_DIR/EXPERIMENT/RUN_ID; a folder of several such folders may be named too.
MAX_DEPTH = 4


@dataclass(frozen=True)
class ListedRun:
    """A run as its files describe it.

    Attributes:
        folder: Its folder.
        experiment: Group that it belongs to.
        arm: Its arm in a comparison.
        data: Name of the data set.
        seed: Seed of everything; ``None`` without a readable record.
        state: The record's status; ``killed`` for a run that says that it is running while no
            process of this machine has its lock, ``unreadable`` without a readable record.
        monitor: Metric that chooses the best epoch.
        validation: Best value of it so far.
        test_metric: Metric that a test reports.
        test: Its value under the evaluation that stands for the run.
        epochs_done: Number of epochs in metrics.csv.
        epochs: Number of epochs asked for.
        size: Bytes of all its files; hard links to one file count once.
        seconds: Seconds since it ended, or since it started.
    """

    folder: Path
    experiment: str
    arm: str = ""
    data: str = ""
    seed: int | None = None
    state: str = "unreadable"
    monitor: str = ""
    validation: float | None = None
    test_metric: str = ""
    test: float | None = None
    epochs_done: int = 0
    epochs: int = 0
    size: int = 0
    seconds: float | None = None

    @property
    def run(self) -> str:
        """The run's name."""
        return self.folder.name


def find_runs(folder: Path) -> list[RunFolder]:
    """The folders of runs in a folder, at most `MAX_DEPTH` levels down; links are not followed.

    Args:
        folder: A folder of runs, of experiments, or of a single run.

    Raises:
        UserError: There is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; name the folder of your runs")
    return [RunFolder(path) for path in sorted(_run_folders(folder, MAX_DEPTH))]


def _run_folders(folder: Path, depth: int) -> Iterator[Path]:
    if is_run(folder):
        yield folder
    elif depth:
        for inner in folders_in(folder):
            yield from _run_folders(inner, depth - 1)


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, which has a configuration or a record."""
    return (folder / "run.json").is_file() or (
        (folder / "config.yaml").is_file() and (folder / "checkpoints").is_dir()
    )


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, without links and without what may not be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(Path(e.path) for e in entries if e.is_dir(follow_symlinks=False))
    except OSError:
        return []


def describe(folder: RunFolder) -> ListedRun:
    """Describe a run; one without a readable record is described by its folder alone."""
    experiment, size = folder.path.resolve().parent.name, size_of(folder.path)
    try:
        record = RunRecord.read(folder.record)
    except UserError:
        return ListedRun(folder.path, experiment, size=size)
    rows = _rows(folder)
    validation = record.best_score
    scores = [row[record.monitor] for row in rows if record.monitor in row]
    if validation is None and scores:
        validation = min(scores) if record.monitor_mode == "min" else max(scores)
    return ListedRun(
        folder.path,
        record.experiment,
        record.arm_name,
        record.data,
        record.seed,
        state_of(record, folder),
        record.monitor,
        validation,
        record.test_metric,
        record.test_value,
        len(rows),
        record.epochs,
        size,
        _seconds_since(record.finished or record.started),
    )


def state_of(record: RunRecord, folder: RunFolder) -> str:
    """The record's status, but ``killed`` where nothing runs that is said to be running."""
    if record.status == "running" and not folder.in_use():
        return "killed"
    return record.status


def _rows(folder: RunFolder) -> list[dict[str, float]]:
    try:
        return MetricsTable(folder.metrics).rows
    except UserError:
        return []


def _seconds_since(time: str) -> float | None:
    try:
        then = datetime.fromisoformat(time)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0.0, (datetime.now(UTC) - then).total_seconds())


def size_of(path: Path) -> int:
    """Bytes of a file or of all files in a folder; hard links to one file count once."""
    if not path.is_dir():
        return path.lstat().st_size
    sizes: dict[tuple[int, int], int] = {}
    for place, _, names in os.walk(path):
        for name in names:
            try:
                found = os.lstat(os.path.join(place, name))
            except OSError:
                # A temporary file of a run that is training.
                continue
            if stat.S_ISREG(found.st_mode):
                sizes[found.st_dev, found.st_ino] = found.st_size
    return sum(sizes.values())


def begun_and_empty(folder: Path) -> bool:
    """Whether a folder is that of a run which was killed before it had a configuration."""
    names = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    return (folder / LOCK).is_file() and all(map(left_by_a_kill, names))
