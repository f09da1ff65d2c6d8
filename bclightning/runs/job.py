"""What a run is for, and what runs of one process share."""

from dataclasses import dataclass
from typing import Any

from bclightning.data import ImageDataModule
from bclightning.runs.wandb_mode import WandbSettings
from bclightning.vocabulary import Stage


@dataclass
class Job:
    """What a run is for; a sweep says it of its trials.

    Args:
        stage: ``train``, or a sweep's ``tune`` (no test set) or ``final``.
        arm: The row of a comparison that the run belongs to; its method when left out.
        trial: Number of the sweep's trial.
        token: Tells the W&B runs of this sweep from those of another one of the same name.
    """

    stage: Stage = "train"
    arm: str | None = None
    trial: int | None = None
    token: str | None = None


# The groups of options of a run that are not Lightning's, for the command line.
SETTINGS = {"wandb": WandbSettings, "job": Job}


class LoadedData:
    """The data that one run loaded, for the next one that asks for the same.

    Example:
        >>> from bclightning.data import Digits
        >>> loaded, first, second = LoadedData(), Digits(), Digits(batch_size=20)
        >>> config = {"class_path": "bclightning.data.Digits", "init_args": {"batch_size": 100}}
        >>> loaded.provide(first, config)
        >>> config = {"class_path": "bclightning.data.Digits", "init_args": {"batch_size": 20}}
        >>> loaded.provide(second, config)
        >>> second.loaded_splits() is first.loaded_splits()
        True
    """

    # What decides how images are batched, and not which images there are.
    BATCHING = ("batch_size", "eval_batch_size", "seed")

    def __init__(self) -> None:
        self._config: dict[str, Any] | None = None
        self._datamodule: ImageDataModule | None = None

    def provide(self, datamodule: ImageDataModule, config: dict[str, Any]) -> None:
        """Make a data module ready: its files verified and its splits loaded, or those of before.

        Args:
            datamodule: The data module.
            config: Its class path and arguments.

        Raises:
            DataError: The files are damaged, or missing and not to be had.
        """
        arguments = config.get("init_args") or {}
        images = {
            "class_path": config.get("class_path"),
            **{key: value for key, value in arguments.items() if key not in self.BATCHING},
        }
        if self._datamodule is not None and images == self._config:
            datamodule.use_splits(self._datamodule.loaded_splits())
        else:
            datamodule.prepare_data()
        datamodule.setup("fit")
        self._config, self._datamodule = images, datamodule
