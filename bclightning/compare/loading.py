"""Where records come from: run folders, sweeps, promoted pages."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bclightning.errors import UserError
from bclightning.runs.folder import RunFolder
from bclightning.runs.record import RunRecord


@dataclass(frozen=True)
class FoundRun:
    """A record, and the folder that it was read from.

    Attributes:
        record: The record.
        folder: The run's folder; ``None`` where the run was made on another machine.
    """

    record: RunRecord
    folder: RunFolder | None


def gather(words: Sequence[str], runs_dir: str = "results/runs") -> list[FoundRun]:
    """Read the records that words mean.

    Args:
        words: Each the folder or the id of a run, a folder of runs (as a sweep's), or a sweep's
            definition. A run that is meant twice is found once.
        runs_dir: Folder of all runs, for ids and definitions.

    Raises:
        UserError: A word means nothing, or a record is damaged; the sentence names it.
    """
    found: dict[Path, FoundRun] = {}
    for word in words:
        for path in _folders(word, runs_dir):
            key = path.resolve()
            if key not in found:
                folder = RunFolder(path)
                found[key] = FoundRun(RunRecord.read(folder.record), folder)
    return list(found.values())


def _folders(word: str, runs_dir: str) -> list[Path]:
    path = Path(word)
    if path.is_file() and path.suffix in (".yaml", ".yml"):
        from bclightning.sweep.definition import Definition

        path = Path(runs_dir) / Definition.read(path).name
        if not path.is_dir():
            raise UserError(f"the sweep {word} has no runs yet: there is no {path}")
    if (path / "run.json").is_file():
        return [path]
    if path.is_dir():
        inside = _inside(path)
        if not inside:
            raise UserError(f"there are no runs in {path}")
        return inside
    return [RunFolder.find(word, runs_dir).path]


def _inside(folder: Path) -> list[Path]:
    # os.scandir, for a folder of ten thousand runs is to be read in a second.
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=True))
    return [folder / name for name in names if os.path.isfile(folder / name / "run.json")]


def gather_from_storage(definition: Path, storage: str) -> list[FoundRun]:
    """Read the records of a sweep from its storage, wherever its runs were made.

    Args:
        definition: The sweep's definition.
        storage: The storage's URL.

    Raises:
        UserError: The definition is malformed, or the storage cannot be reached.
    """
    from bclightning.sweep.definition import Definition
    from bclightning.sweep.studies import Studies

    studies = Studies(Definition.read(definition), storage)
    try:
        return [FoundRun(record, None) for record in studies.records()]
    finally:
        studies.close()
