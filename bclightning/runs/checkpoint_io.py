"""Checkpoint files: written whole, with checksums, and executing nothing when they are loaded."""

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from bclightning.errors import UserError
from bclightning.runs.loadable import LoadableValues
from bclightning.storage import replacing

# The name of `RunCheckpoint`'s state in checkpoints, whatever the class is called.
STATE_KEY = "RunCheckpoint"


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Load a Lightning checkpoint, of tensors and plain data only, to the CPU.

    Its content is compared with the checksums (CRC-32) that `torch.save` writes beside each tensor
    and `torch.load` does not look at.

    Raises:
        UserError: The file is missing, damaged, or not a Lightning checkpoint; nothing in it was
            executed.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    require_intact(path)
    checkpoint = _load_plain(path)
    if not isinstance(checkpoint.get("state_dict"), dict):
        raise UserError(
            f"{path} is not a checkpoint of a Lightning run: it has no 'state_dict'; "
            "a bare state_dict can be saved as {'state_dict': ...}"
        )
    return checkpoint


def require_intact(path: Path) -> None:
    """Compare a checkpoint's content with the checksums in it.

    A file in torch's older format has none, nor has one that was written while
    `torch.serialization.set_crc32_options` said so.

    Raises:
        UserError: They differ, so that other weights than those that were saved would be loaded.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            # As torch writes them; what says otherwise may be a bomb.
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
            whole = sum(entry.file_size for entry in entries) <= path.stat().st_size
            has_checksums = any(entry.CRC for entry in entries)
            damaged = not stored or not whole or (has_checksums and archive.testzip() is not None)
    except Exception as error:  # a damaged file makes the parser fail in whatever way
        raise _damaged(path) from error
    if damaged:
        raise _damaged(path)


def _damaged(path: Path) -> UserError:
    return UserError(f"the checkpoint {path} is damaged or not a checkpoint; give another one")


def _load_plain(path: Path) -> dict[str, Any]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"the checkpoint {path} holds more than tensors and plain data, or is no checkpoint, "
            "and is not loaded, since loading it could execute code"
        ) from error
    except Exception as error:  # a damaged file makes the parsers fail in whatever way
        raise _damaged(path) from error
    if not isinstance(checkpoint, dict):
        raise _damaged(path)
    return checkpoint


# What Lightning and `RunCheckpoint` read when a run is resumed.
_IN_CHECKPOINT = {
    "epoch": int,
    "global_step": int,
    "pytorch-lightning_version": str,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}
_IN_STATE = {
    "best_epoch": int | None,
    "best": int | float,
    "last_epoch": int,
    "seconds": int | float,
}


def require_resumable(last: Path, best: Path) -> None:
    """Make sure that a run can be resumed from its checkpoints.

    Args:
        last: Checkpoint of the last epoch.
        best: Checkpoint of the best epoch.

    Raises:
        UserError: One is damaged, missing, or holds something else; the sentence says what to do.
    """
    try:
        checkpoint = load_checkpoint(last)
        _require_kinds(checkpoint, _IN_CHECKPOINT, last)
        state = checkpoint["callbacks"].get(STATE_KEY)
        _require_kinds(state, _IN_STATE, last)
    except UserError as error:
        way = "delete the run's folder and train it again"
        if best.exists() and not best.samefile(last):
            way = f"copy {best.name} over {last.name} to resume from the best epoch, or {way}"
        raise UserError(f"the run cannot be resumed: {error}: {way}") from error
    if state["best_epoch"] not in (None, state["last_epoch"]) and not best.exists():
        raise UserError(
            f"the run cannot be resumed: there is no {best}, the checkpoint of its best epoch"
        )


def _require_kinds(content: Any, kinds: Mapping[str, Any], path: Path) -> None:
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a checkpoint of a run: it has no state of {STATE_KEY}")
    for key, kind in kinds.items():
        value = content.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(
                f"{path} is not a checkpoint of a run: its {key!r} is {type(value).__name__}"
            )


class WholeFileCheckpointIO(TorchCheckpointIO):
    """Write checkpoints whole or not at all, and read them without executing anything.

    Lightning writes through another folder and moves without flushing, which a kill or a full disk
    can tear. What could not be loaded again is refused before it is written, and the first
    checkpoint is read back.
    """

    def __init__(self) -> None:
        super().__init__()
        self._values = LoadableValues()
        self._read_back = False

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,
    ) -> None:
        """Save to a temporary file beside `path`, flush, and let it take the place of `path`.

        Raises:
            UserError: The disk is full, or a value could not be loaded again; an older checkpoint
                at `path` is intact.
        """
        path = Path(path)
        self._values.require(checkpoint)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:
                # After a failed write torch closes its archive, fails in that too, and raises the
                # second error, in the context of the one that says what is wrong.
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
        if not self._read_back:
            # Now, and not after the last epoch, when only the file is left.
            require_intact(path)
            _load_plain(path)
            self._read_back = True

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Load tensors and plain data.

        Lightning's launchers also hand over bare weights in a file, from a process that trained.

        Raises:
            UserError: The file is damaged or holds more than that; nothing in it was executed.
        """
        path = Path(path)
        require_intact(path)
        return _load_plain(path)
