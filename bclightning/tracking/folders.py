"""Where W&B's files of runs lie, how to look at them, and how they are uploaded."""

from collections.abc import Sequence
from pathlib import Path

from bclightning.errors import UserError

FOLDER = "wandb"
"""Name of the folder in which W&B keeps its files, one in each experiment."""

_OFFLINE = "offline-run-*"


def how_to_look(folder: Path, mode: str) -> list[str]:
    """Commands that show a run beside the others of its experiment, and upload them all.

    Args:
        folder: The run's folder.
        mode: How it was logged.

    Returns:
        None where W&B has no files of it.

    Example:
        >>> import tempfile
        >>> experiment = Path(tempfile.mkdtemp())
        >>> (experiment / "wandb").mkdir()
        >>> commands = how_to_look(experiment / "a", "offline")
        >>> [line.replace(str(experiment), "runs/digits") for line in commands]
        ['wandb leet runs/digits/wandb', 'bcl sync runs/digits']
    """
    # Older runs have W&B's files in their own folder.
    for place in (folder.parent, folder):
        if (place / FOLDER).is_dir():
            lines = [f"wandb leet {place / FOLDER}"]
            return [*lines, f"bcl sync {place}"] if mode == "offline" else lines
    return []


def offline_runs(folder: Path) -> list[Path]:
    """The files of runs that were logged offline, in order of time.

    Args:
        folder: Folder of all runs, of an experiment or of a run, or a folder of W&B's.

    Raises:
        UserError: There is no such folder.
    """
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}; give the folder of runs, or of one experiment"
        )
    below: Sequence[str] = ("", f"{FOLDER}/", f"*/{FOLDER}/", f"*/*/{FOLDER}/")
    found = {path for place in below for path in folder.glob(f"{place}{_OFFLINE}/*.wandb")}
    return sorted(found, key=lambda path: (path.parent.name, path))


def is_uploaded(file: Path) -> bool:
    """Whether W&B has marked a run's file as uploaded."""
    return file.with_name(f"{file.name}.synced").exists()


def upload(files: Sequence[Path]) -> None:
    """Upload runs by W&B's own ``wandb sync``; parts of one run become one.

    Args:
        files: Files from `offline_runs`.
    """
    # W&B's program, without a process of its own.
    from wandb.cli.cli import cli

    cli.main(["sync", *map(str, files)], prog_name="wandb", standalone_mode=False)
