"""The files of a promoted page's folder: what is copied into it, and what of it may go."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock

from bclightning.compare.selection import some
from bclightning.errors import MachineError, UserError
from bclightning.runs.folder import RunFolder
from bclightning.runs.record import RunRecord
from bclightning.storage import TEMPORARY_SUFFIX, full_disk, replacing, write_text
from bclightning.yaml_files import read_yaml

PAGE = "README.md"
SWEEP = "sweep.yaml"
# What people found, in their own words; all else on a page comes from its records.
NOTES = "NOTES.md"
# What was asked of the records: the margin of equivalence.
SETTINGS = "page.yaml"

# What is kept of each run that is compared, of the run of each arm that is shown, and of a run that
# is left out.
COMPARED = ("run.json", "metrics.csv", "config.yaml")
SHOWN = ("first_layer.json", "first_layer.png")
LEFT_OUT = ("run.json",)

# A page is written in seconds.
LOCK_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class KeptRun:
    """A run that a page keeps.

    Attributes:
        record: Its record.
        source: The folder that it is copied from.
        needed: Names of the files that are copied.
        optional: Names of the files that are copied where they are there.
    """

    record: RunRecord
    source: RunFolder
    needed: Sequence[str] = LEFT_OUT
    optional: Sequence[str] = ()


def by_name(runs: Sequence[KeptRun]) -> dict[str, KeptRun]:
    """The runs by the names of their folders on the page.

    Raises:
        UserError: Two runs have one name.
    """
    named: dict[str, KeptRun] = {}
    for run in runs:
        other = named.setdefault(run.record.run_id, run)
        if other is not run:
            raise UserError(
                f"{other.source.path} and {run.source.path} are two runs of one name, and a page "
                f"keeps each run by its name; write a page for each experiment, or rename one"
            )
    return named


def check_folder(folder: Path, kept: Mapping[str, KeptRun], mark: str) -> None:
    """See that a page can be written without removing anything.

    Args:
        folder: The page's folder, which need not exist.
        kept: The runs of the page to be written.
        mark: What the text of every page has.

    Raises:
        UserError: Something would go; the sentence names it.
    """
    going = [path.name for path in _going(folder, kept)]
    what = [f"{len(going)} runs that are not compared here ({some(going)})"] if going else []
    if _foreign_notes(folder, kept):
        what.append(f"the {NOTES} of that page")
    page = folder / PAGE
    if page.is_file() and mark not in page.read_text(encoding="utf-8", errors="replace"):
        what.append(f"a {PAGE} that is no page of `bcl compare`")
    if what:
        raise UserError(
            f"{folder} holds {' and '.join(what)}, which would be removed; write the page into "
            "another folder, or add --replace"
        )


def _records(folder: Path) -> list[Path]:
    """Folders in a page's folder that are runs."""
    return sorted(path.parent for path in folder.glob("*/run.json"))


def _going(folder: Path, kept: Mapping[str, KeptRun]) -> list[Path]:
    """What is there of runs that the page does not keep, be it under the name of one it keeps."""
    return [path for path in _records(folder) if not _stays(path, kept.get(path.name))]


def _stays(path: Path, run: KeptRun | None) -> bool:
    if run is None:
        return False
    if path.resolve() == run.source.path.resolve():
        return True
    return not path.is_symlink() and _experiment(path) in ("", run.record.experiment)


def _experiment(path: Path) -> str:
    """The experiment of the run that is there; empty where its record is damaged."""
    try:
        return RunRecord.read(path / "run.json").experiment
    except UserError:
        return ""


def _foreign_notes(folder: Path, kept: Mapping[str, KeptRun]) -> bool:
    """Whether there are notes on a page whose runs are all of other experiments."""
    there = {_experiment(path) for path in _records(folder)}
    ours = {run.record.experiment for run in kept.values()}
    return (folder / NOTES).is_file() and bool(there) and not there & {*ours, ""}


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a page's folder, and keep other processes from writing it meanwhile.

    Raises:
        MachineError: The folder cannot be made or written, or another process writes the page.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock")
        lock.acquire(timeout=LOCK_TIMEOUT_SECONDS)
    except filelock.Timeout as error:
        raise MachineError(f"another process writes the page in {folder}; wait for it") from error
    except OSError as error:
        raise full_disk(error, folder) or MachineError(
            f"the folder {folder} cannot be written: {error.strerror}"
        ) from error
    try:
        yield
    finally:
        # Before it is released: who waits for it sees that the file is gone, and makes another.
        (folder / ".lock").unlink(missing_ok=True)
        lock.release()


def fill(folder: Path, kept: Mapping[str, KeptRun]) -> None:
    """Copy runs into a page's folder, and remove what is of no run of the page.

    Args:
        folder: The page's folder.
        kept: The runs.

    Raises:
        UserError: A run lacks a file that it must have.
        MachineError: The disk is full; the file that was being written is as it was.
    """
    for leftover in (
        *folder.glob(f".*{TEMPORARY_SUFFIX}"),
        *folder.glob(f"*/.*{TEMPORARY_SUFFIX}"),
    ):
        leftover.unlink(missing_ok=True)
    foreign_notes = _foreign_notes(folder, kept)
    for path in _going(folder, kept):
        _remove(path)
    if foreign_notes:
        (folder / NOTES).unlink()
    if {_experiment(path) for path in _records(folder)}.isdisjoint(
        {"", *(run.record.experiment for run in kept.values())}
    ):
        # A margin that was chosen for other runs is not one that was chosen for these.
        (folder / SETTINGS).unlink(missing_ok=True)
    for name, run in kept.items():
        if run.source.path.resolve() != (folder / name).resolve():
            _copy_run(run, folder / name)


def _remove(path: Path) -> None:
    """Remove what a page keeps of a run, and its folder unless somebody has put more into it."""
    if path.is_symlink():
        path.unlink()
        return
    for name in (*COMPARED, *SHOWN):
        (path / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        path.rmdir()


def _copy_run(run: KeptRun, target: Path) -> None:
    for name in run.needed:
        if not (run.source.path / name).is_file():
            raise UserError(f"{run.source.path} has no {name}, which a page needs")
    target.mkdir(exist_ok=True)
    for name in (*COMPARED, *SHOWN):
        source = run.source.path / name
        if name in (*run.needed, *run.optional) and source.is_file():
            copy(source, target / name)
        else:
            (target / name).unlink(missing_ok=True)


def copy(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all.

    Raises:
        MachineError: The source cannot be read, or the disk is full and the target is as it was.
    """
    try:
        content = source.read_bytes()
    except OSError as error:
        raise MachineError(f"{source} cannot be read: {error.strerror}") from error
    with replacing(target) as file:
        file.write(content)


def keep_definition(folder: Path, runs: Sequence[KeptRun]) -> None:
    """Keep the definition of the sweep that made the runs; one of another page goes."""
    definitions = {run.source.path.resolve().parent / SWEEP for run in runs}
    by_sweep = all(run.record.stage != "train" for run in runs)
    if by_sweep and len(definitions) == 1 and (definition := definitions.pop()).is_file():
        if definition != folder.resolve() / SWEEP:
            copy(definition, folder / SWEEP)
    else:
        (folder / SWEEP).unlink(missing_ok=True)


def read_text(path: Path) -> str:
    """The content of a text file.

    Raises:
        UserError: It cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text") from error


def keep_margin(folder: Path, margin: float) -> None:
    """Keep the margin of equivalence that a page is made with."""
    write_text(folder / SETTINGS, f"margin: {margin!r}\n")


def kept_margin(folder: Path) -> float | None:
    """The margin of equivalence that a page is made with, ``None`` where it has none.

    Raises:
        UserError: What the folder says of it is malformed.
    """
    path = folder / SETTINGS
    if not path.is_file():
        return None
    content = read_yaml(path)
    margin = content.get("margin") if isinstance(content, dict) else None
    if not isinstance(margin, (int, float)) or isinstance(margin, bool):
        raise UserError(f"{path} does not say a margin; write the page again with --margin")
    return float(margin)
