"""Data that the runs of one process share, and what a data module offers."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.model_helpers import is_overridden

from bclightning.data import ImageDataModule
from bclightning.data.base import data_folder
from bclightning.errors import UserError
from bclightning.storage import expanded


class SharedData:
    """The data that one run loaded, for the next one that asks for the same.

    Example:
        >>> from bclightning.data import Digits
        >>> shared, first, second = SharedData(), Digits(), Digits(batch_size=20)
        >>> config = {"class_path": "bclightning.data.Digits", "init_args": {"batch_size": 100}}
        >>> shared.provide(first, config)
        >>> config = {"class_path": "bclightning.data.Digits", "init_args": {"batch_size": 20}}
        >>> shared.provide(second, config)
        >>> second.loaded_splits() is first.loaded_splits()
        True
    """

    # What decides how images are batched, and not which images there are.
    _BATCHING = ("batch_size", "eval_batch_size", "seed")

    def __init__(self) -> None:
        self._config: dict[str, Any] | None = None
        self._datamodule: ImageDataModule | None = None

    def provide(self, datamodule: ImageDataModule, config: Mapping[str, Any]) -> None:
        """Verify the files of a data module and load its splits, or take those of before.

        Args:
            datamodule: The data module.
            config: Its class path and arguments.

        Raises:
            DataError: The files are damaged, or missing and cannot be downloaded.
        """
        arguments = config.get("init_args") or {}
        images = {
            "class_path": config.get("class_path"),
            **{key: value for key, value in arguments.items() if key not in self._BATCHING},
        }
        if self._datamodule is not None and images == self._config:
            datamodule.use_splits(self._datamodule.loaded_splits())
        else:
            datamodule.prepare_data()
        datamodule.setup("fit")
        self._config, self._datamodule = images, datamodule


def data_name(datamodule: LightningDataModule) -> str:
    """The data set's name: the data module's own, or its class's."""
    return str(getattr(datamodule, "name", None) or type(datamodule).__name__.lower())


def has_loader(datamodule: LightningDataModule, name: str) -> bool:
    """Whether a data module, of a user's own perhaps, has one of Lightning's loaders.

    Example:
        >>> has_loader(LightningDataModule(), "test_dataloader")
        False
    """
    return is_overridden(name, datamodule)


def require_loader(datamodule: LightningDataModule, name: str) -> None:
    """Make sure of a loader.

    Raises:
        UserError: The data module has none.
    """
    if not has_loader(datamodule, name):
        raise UserError(f"{type(datamodule).__name__} has no {name}; define one")


def root_to_write(config: Mapping[str, Any]) -> str | None:
    """The data folder as a run's configuration file says it, which other folders are left to read.

    One that was given becomes absolute. One that was not stays `None`, so that a published record
    says nothing of its machine, unless the runs' folder is absolute and does not lead back to the
    folder where the run began.

    Args:
        config: The run's configuration, as plain data.
    """
    root = _root(config)
    if root is not None:
        # Only what is there: what another class calls its root may be an address.
        return str(expanded(root).absolute()) if expanded(root).exists() else root
    if (
        _is_ours(config)
        and expanded(config["runs_dir"]).is_absolute()
        and "BCL_DATA" not in os.environ
        and data_folder(None).is_dir()
    ):
        return str(data_folder(None).absolute())
    return None


def root_of_run(recorded: Mapping[str, Any], run: Path) -> str | None:
    """The folder where the data of an existing run are, from the folder where this process is.

    What the file says, if that is there; else where this machine has its data (``BCL_DATA`` or
    ``data``), if that is there; else what the file says or ``data``, seen from where the run began.

    Args:
        recorded: The run's configuration, as its file says it.
        run: The run's folder.

    Returns:
        The folder; `None` for where this machine has its data.
    """
    root = _root(recorded)
    if root is not None and expanded(root).exists():
        return root
    relative = root is not None and not expanded(root).is_absolute()
    if not relative:
        if not _is_ours(recorded):
            return root
        root = None
        if "BCL_DATA" in os.environ or data_folder(None).is_dir():
            return None
    began = _where_it_began(recorded, run)
    there = None if began is None else began / (root or data_folder(None))
    return root if there is None or not there.exists() else str(there)


def _root(config: Mapping[str, Any]) -> str | None:
    root = ((config.get("data") or {}).get("init_args") or {}).get("root")
    return root if isinstance(root, str) else None


def _is_ours(config: Mapping[str, Any]) -> bool:
    # What another class does without a root is its own affair.
    return str((config.get("data") or {}).get("class_path")).startswith("bclightning.")


def _where_it_began(recorded: Mapping[str, Any], run: Path) -> Path | None:
    """The folder that a run's own folder leads back to: the one that has RUNS_DIR in it."""
    runs_dir = expanded(str(recorded.get("runs_dir")))
    path = run.resolve()
    depth = len(runs_dir.parts) + 2
    if runs_dir.is_absolute() or ".." in runs_dir.parts or len(path.parts) <= depth:
        return None
    began = Path(*path.parts[:-depth])
    return began if path.parent.parent == began / runs_dir else None
