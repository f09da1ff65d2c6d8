"""Data that the runs of one process share, and what a data module offers."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.model_helpers import is_overridden

from bclightning.data import ImageDataModule
from bclightning.errors import UserError


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
