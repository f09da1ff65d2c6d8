"""What a new run starts from that has another run's weights: its settings and its checkpoint."""

from pathlib import Path
from typing import Any

from bclightning.errors import UserError
from bclightning.runs.allowed_code import open_config
from bclightning.runs.data import root_of_run
from bclightning.runs.folder import RunFolder
from bclightning.storage import home_expanded

# What a run that starts from another one has of its own.
_ITS_OWN = ("purpose", "run_id", "warm_start")


def run_named_by(start: str) -> RunFolder | None:
    """The run whose last weights are meant; ``None`` where a checkpoint is named.

    Args:
        start: Path of a checkpoint, folder of a run, or its id below ``results/runs``.

    Raises:
        UserError: There is neither, or several runs have that id.
    """
    path = Path(home_expanded(start))
    if path.is_file() or path.suffix == ".ckpt":
        return None
    try:
        return RunFolder.find(start)
    except UserError as error:
        raise UserError(f"there is no checkpoint {start}, and {error}") from error


def settings_of(folder: RunFolder) -> dict[str, Any]:
    """The settings of a run, for a new run that starts from its weights.

    Args:
        folder: The run's folder.

    Raises:
        UserError: The run was not made here, so that its settings are not to be called as code.
    """
    content, allowed = open_config(folder)
    if allowed is not None:
        raise UserError(
            f"the run {folder.path} was not made here, so a new one does not take its settings; "
            f"give --config, and take its weights with --warm_start {last_checkpoint(folder)}"
        )
    kept = {key: value for key, value in content.items() if key not in _ITS_OWN}
    if (folder.path.parent / "sweep.yaml").exists():
        # A sweep's folder is for the sweep's own runs.
        kept["experiment"] = None
    arguments = (content.get("data") or {}).get("init_args") or {}
    if "root" in arguments:
        root = root_of_run(content, folder.path)
        kept["data"] = {**content["data"], "init_args": {**arguments, "root": root}}
    return kept


def last_checkpoint(folder: RunFolder) -> Path:
    """The checkpoint of a run's last epoch, or of its best one where there is no other."""
    last, best = (folder.checkpoints / f"{name}.ckpt" for name in ("last", "best"))
    return best if best.exists() and not last.exists() else last
