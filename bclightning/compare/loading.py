"""Where records come from: run folders, sweeps, promoted pages."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bclightning.compare.dataframe import data_frame
from bclightning.compare.selection import how_far
from bclightning.errors import UserError
from bclightning.runs.folder import RunFolder
from bclightning.runs.record import RunRecord
from bclightning.storage import expanded

# Columns of a data frame of runs before those of their hyperparameters.
COLUMNS = (
    "run_id",
    "experiment",
    "arm",
    "regularizer",
    "data",
    "seed",
    "status",
    "stage",
    "monitor",
    "best_epoch",
    "best_score",
    "test_metric",
    "test_value",
    "train_seconds",
)


class RunList(list[RunRecord]):
    """Records of runs.

    Example:
        >>> runs = RunList([RunRecord("a", "e", "none", "digits", seed) for seed in range(3)])
        >>> [run.seed for run in runs if run.regularizer == "none"]
        [0, 1, 2]
    """

    def to_dataframe(self) -> Any:
        """A ``pandas.DataFrame`` with a row a run, and a column for each hyperparameter.

        Epochs are counted from 0, as in ``metrics.csv``.

        Raises:
            UserError: pandas is not installed.
        """
        return data_frame([_row(run) for run in self], COLUMNS)


def _row(run: RunRecord) -> dict[str, Any]:
    values = {**vars(run), "arm": run.arm_name, "test_value": run.test_value}
    # The keys of hyperparameters have dots, and those of columns none.
    return {**{column: values[column] for column in COLUMNS}, **run.hyperparameters}


@dataclass(frozen=True)
class FoundRun:
    """A record, and the folder that it was read from.

    Attributes:
        record: The record.
        folder: The run's folder; ``None`` where the run was made on another machine.
    """

    record: RunRecord
    folder: RunFolder | None


def load_runs(
    path: str | os.PathLike[str],
    *paths: str | os.PathLike[str],
    runs_dir: str | os.PathLike[str] = "results/runs",
) -> RunList:
    """Read the records of runs.

    Args:
        path: The folder or the id of a run, a folder of runs (as a sweep's or a promoted page's),
            or a sweep's definition.
        *paths: More of them; a run that is named twice is read once.
        runs_dir: Folder of all runs, for ids and definitions.

    Raises:
        UserError: A path names no run, or a record is damaged; the sentence names it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "a").mkdir()
        >>> RunRecord("a", "e", "none", "digits", seed=1).write(folder / "a" / "run.json")
        >>> [run.run_id for run in load_runs(folder)]
        ['a']
    """
    named = [str(expanded(name)) for name in (path, *paths)]
    return RunList(run.record for run in gather(named, str(expanded(runs_dir))))


def gather(names: Sequence[str], runs_dir: str = "results/runs") -> list[FoundRun]:
    """Find runs and read their records.

    Args:
        names: Each the folder or the id of a run, a folder of runs (as a sweep's), or a sweep's
            definition. A run that is named twice is found once.
        runs_dir: Folder of all runs, for ids and definitions.

    Raises:
        UserError: A name is of no run, or a record is damaged; the sentence names it.
    """
    found: dict[Path, FoundRun] = {}
    for name in names:
        for path in _folders(name, runs_dir):
            key = path.resolve()
            if key not in found:
                folder = RunFolder(path)
                found[key] = FoundRun(RunRecord.read(folder.record), folder)
    return list(found.values())


def _folders(name: str, runs_dir: str) -> list[Path]:
    try:
        return _run_folders(name, runs_dir)
    except OSError as error:
        # A name that is too long, a link to itself, a folder that is not ours to read.
        raise UserError(f"there is no run {name!r} that can be read: {error.strerror}") from error


def _run_folders(name: str, runs_dir: str) -> list[Path]:
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        path = _sweep_folder(path, runs_dir)
        if not path.is_dir():
            raise UserError(f"the sweep {name} has no runs yet: there is no {path}")
    if (path / "run.json").is_file():
        return [path]
    if path.is_dir():
        inside = _inside(path)
        if not inside:
            raise UserError(f"there are no runs in {path}")
        return inside
    return [RunFolder.find(name, runs_dir).path]


def _sweep_folder(definition: Path, runs_dir: str) -> Path:
    from bclightning.sweep.definition import Definition

    return Path(runs_dir) / Definition.read(definition).name


def _inside(folder: Path) -> list[Path]:
    # os.scandir, for a folder of ten thousand runs is to be read in a second.
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries)
    return [folder / name for name in names if os.path.isfile(folder / name / "run.json")]


def gather_sweep(definition: Path, storage: str, runs_dir: str) -> list[FoundRun]:
    """Find the runs of a sweep, here and in its storage, wherever they were made.

    Of a run that is in both, what is further counts: a copy that was made while it was running
    hides no finished one. What is as far is taken from here, where its files are.

    Args:
        definition: The sweep's definition.
        storage: The storage's URL.
        runs_dir: Folder of all runs.

    Raises:
        UserError: The definition is malformed, the storage is missing or cannot be reached, or a
            record is damaged.
    """
    folder = _sweep_folder(definition, runs_dir)
    here = gather([str(folder)]) if folder.is_dir() and _inside(folder) else []
    found: dict[tuple[str, str], FoundRun] = {}
    for run in [*here, *_stored(definition, storage)]:
        key = (run.record.experiment, run.record.run_id)
        other = found.setdefault(key, run)
        if how_far(run.record) > how_far(other.record):
            found[key] = run
    return list(found.values())


def _stored(definition: Path, storage: str) -> list[FoundRun]:
    from bclightning.sweep.definition import Definition
    from bclightning.sweep.reading import reading

    with reading(Definition.read(definition), storage) as studies:
        return [FoundRun(record, None) for record in studies.records()]
