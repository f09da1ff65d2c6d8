"""Images in memory, in batches: what all the data sets share."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from bclightning.data.files import DataFile, obtain
from bclightning.errors import UserError
from bclightning.preprocessing import Preprocessing
from bclightning.seeds import SEEDING, RunSeeds
from bclightning.storage import expanded

Batch = tuple[Tensor, Tensor]
Transform = Callable[[Tensor], Tensor]


class ImageTensors(Dataset[Batch]):
    """Images and labels as two tensors; a batch is one indexing operation.

    Args:
        images: Images of shape (count, channels, height, width).
        labels: Class indices of shape (count,), int64.
        transform: Function of a batch of images, for data that is too large to hold transformed;
            `None` for the images as they are.

    Example:
        >>> data = ImageTensors(torch.zeros(5, 1, 2, 2), torch.arange(5))
        >>> images, labels = data.__getitems__([3, 1])
        >>> images.shape, labels
        (torch.Size([2, 1, 2, 2]), tensor([3, 1]))
    """

    def __init__(self, images: Tensor, labels: Tensor, transform: Transform | None = None) -> None:
        self.images = images
        self.labels = labels
        self.transform = transform

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> Batch:
        """One image, as a batch of one without its first dimension."""
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices: list[int]) -> Batch:
        """The batch of these images."""
        chosen = torch.tensor(indices)
        images = self.images[chosen]
        if self.transform is not None:
            images = self.transform(images)
        return images, self.labels[chosen]


class EpochSampler(Sampler[int]):
    """A shuffled order that is a function of the run's seeds and the epoch, and of nothing before.

    Lightning tells samplers that have `set_epoch` which epoch begins, so a resumed run has the
    same order as one that never stopped.

    Args:
        count: Number of images.
        seeds: Seeds of the run.

    Example:
        >>> sampler = EpochSampler(6, RunSeeds(0))
        >>> list(sampler)
        [4, 2, 3, 1, 0, 5]
        >>> sampler.set_epoch(1)
        >>> list(sampler)
        [3, 1, 2, 0, 4, 5]
    """

    def __init__(self, count: int, seeds: RunSeeds) -> None:
        self.count = count
        self.seeds = seeds
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next order is for."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """The epoch's order."""
        generator = torch.Generator().manual_seed(self.seeds.order(self.epoch))
        return iter(torch.randperm(self.count, generator=generator).tolist())

    def __len__(self) -> int:
        """Number of images."""
        return self.count


def data_folder(root: str | None) -> Path:
    """The folder of the data sets.

    Args:
        root: The folder; `None` for the environment variable ``BCL_DATA``, or for ``data`` where
            that is not set. ``~`` is the user's own folder.

    Example:
        >>> data_folder("sets")
        PosixPath('sets')
    """
    return expanded(root if root is not None else os.environ.get("BCL_DATA") or "data")


def identity_collate(batch: Any) -> Any:
    """Collate function for a data set that returns whole batches: return the batch unchanged."""
    return batch


class ImageDataModule(LightningDataModule):
    """What the data sets share: files, splits in memory, loaders of whole batches.

    A subclass names the files that it needs and loads its splits; see `load_splits`.

    Args:
        root: The data folder, in torchvision's layout; `None` for the environment variable
            ``BCL_DATA``, or for ``data`` where that is not set.
        batch_size: Number of images in a training batch.
        eval_batch_size: Number of images in a batch of validation, test and statistics, where it
            changes the speed alone.
        seed: Seed of the shuffled order; `None` for the run's (``seed_everything``).

    Attributes:
        seed: The argument `seed`.
        seeds: Seeds that the next training loader shuffles with. Until `use_seeds` is called, they
            are those of `seed`, or of torch's initial seed when the module was made, which
            ``lightning.seed_everything`` sets.
        name: Name of the data set in records and tables.
        files: The files that the data set is made of.

    Raises:
        ValueError: A batch size is less than 1, or the seed is negative.

    Example:
        >>> from bclightning.data import Digits
        >>> Digits(seed=3).seeds
        RunSeeds(seed=3, version=2)
        >>> _ = torch.manual_seed(17)
        >>> data = Digits()
        >>> data.seed, data.seeds.seed
        (None, 17)
    """

    name: str
    files: ClassVar[tuple[DataFile, ...]] = ()

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 100,
        eval_batch_size: int = 1000,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        for key, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size < 1:
                raise ValueError(f"{key} must be at least 1, and is {size}")
        self.root = data_folder(root)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.seed = seed
        # Torch's initial seed may have 64 bits where no one has set it.
        self.seeds = RunSeeds(torch.initial_seed() % 2**32 if seed is None else seed)
        self._splits: dict[str, ImageTensors] = {}

    def use_seeds(self, run_seed: int, version: int = SEEDING) -> None:
        """Shuffle with the seeds of a run, in the training loaders that are made from now on.

        Args:
            run_seed: The run's seed; a `seed` that the constructor was given takes precedence.
            version: Version of how seeds are derived; see `bclightning.seeds.RunSeeds`.

        Raises:
            ValueError: The seed is negative, or the version is unknown.

        Example:
            >>> from bclightning.data import Digits
            >>> data, own = Digits(), Digits(seed=3)
            >>> data.use_seeds(7, version=1)
            >>> own.use_seeds(7, version=1)
            >>> data.seeds, own.seeds
            (RunSeeds(seed=7, version=1), RunSeeds(seed=3, version=1))
        """
        self.seeds = RunSeeds(run_seed if self.seed is None else self.seed, version)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width of an image; fewer for signals and vectors."""
        raise NotImplementedError

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        raise NotImplementedError

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def load_splits(self) -> dict[str, ImageTensors]:
        """Load ``train``, ``val`` and ``test``, from files that are there and verified."""
        raise NotImplementedError

    def preprocessing(self) -> Preprocessing:
        """The preprocessing of the files' pixels, which a packed model carries with it."""
        raise NotImplementedError

    def test_pixels(self) -> Tensor:
        """Pixels of the test images as they are in the files, in file order, not preprocessed."""
        raise NotImplementedError

    def split_sizes(self) -> dict[str, int]:
        """Number of images in each split."""
        return {split: len(images) for split, images in self.loaded_splits().items()}

    def checksums(self) -> dict[str, str]:
        """MD5 of each file that the data set is made of, by name."""
        return {file.name: file.md5 for file in self.files}

    def prepare_data(self) -> None:
        """Verify all files, and download those that are missing.

        Raises:
            DataError: A file is damaged, or missing and cannot be downloaded.
        """
        for file in self.files:
            obtain(file, self.root)

    def setup(self, stage: str) -> None:
        """Load the splits, at the first call.

        Raises:
            UserError: `batch_size` is larger than the training set.
        """
        training = len(self.loaded_splits()["train"])
        if self.batch_size > training:
            raise UserError(
                f"batch_size {self.batch_size} is more than the {training} training images of "
                f"{self.name}; give a smaller --data.batch_size"
            )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled training batches, all of the same size.

        An incomplete last batch is dropped, since batch normalization would estimate its
        statistics from a few images, or one. With the paper's batch sizes nothing is dropped on
        MNIST and CIFAR-10, and 38 images an epoch on SVHN, different ones each time.
        """
        data = self.loaded_splits()["train"]
        return DataLoader(
            data,
            batch_size=self.batch_size,
            sampler=EpochSampler(len(data), self.seeds),
            drop_last=True,
            collate_fn=identity_collate,
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """Validation images in file order."""
        return self._in_order(self.loaded_splits()["val"])

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test images in file order."""
        return self._in_order(self.loaded_splits()["test"])

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Test images in file order, for predictions."""
        return self.test_dataloader()

    def statistics_dataloader(self, limit: int | None = None) -> DataLoader[Batch]:
        """Training images in a fixed order, for estimates over the training set.

        Args:
            limit: Maximum number of images, evenly spread over the split; `None` for all.

        Raises:
            ValueError: The limit is less than 1.
        """
        if limit is not None and limit < 1:
            raise ValueError(f"statistics need at least one image, and the limit is {limit}")
        data = self.loaded_splits()["train"]
        if limit is not None and limit < len(data):
            chosen = torch.linspace(0, len(data) - 1, limit).long()
            data = ImageTensors(data.images[chosen], data.labels[chosen], data.transform)
        return self._in_order(data)

    def _in_order(self, data: ImageTensors) -> DataLoader[Batch]:
        return DataLoader(data, batch_size=self.eval_batch_size, collate_fn=identity_collate)

    def loaded_splits(self) -> dict[str, ImageTensors]:
        """The splits, loaded at the first call."""
        if not self._splits:
            self._splits = self.load_splits()
        return self._splits

    def use_splits(self, splits: dict[str, ImageTensors]) -> None:
        """Use splits of the same data that another data module has loaded."""
        self._splits = splits


class CachedImageDataModule(ImageDataModule):
    """A data set whose images are arranged or whitened once and kept on the disk.

    Args:
        root: See `ImageDataModule`.
        batch_size: See `ImageDataModule`.
        eval_batch_size: See `ImageDataModule`.
        seed: See `ImageDataModule`.
        cache_dir: Folder of the cached images; `None` for ``root/bclightning-cache``.
    """

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 50,
        eval_batch_size: int = 1000,
        seed: int | None = None,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size, seed)
        self.cache_dir = expanded(cache_dir) if cache_dir else self.root / "bclightning-cache"


class CentredImageDataModule(ImageDataModule):
    """A data set with pixels in [0, 1] from which the mean training image is subtracted.

    The test images are centred with the mean training image too, since nothing may be estimated
    on them.

    Attributes:
        scale: Divisor of the files' pixels.
    """

    scale: ClassVar[float]

    def scaled_splits(self) -> dict[str, ImageTensors]:
        """Load ``train``, ``val`` and ``test``, with pixels in [0, 1]."""
        raise NotImplementedError

    def load_splits(self) -> dict[str, ImageTensors]:
        """Load the splits and centre them."""
        splits = self.scaled_splits()
        mean = splits["train"].images.mean(0)
        for split in splits.values():
            split.images -= mean
        return splits

    def preprocessing(self) -> Preprocessing:
        """The scale and the mean training image."""
        mean = self.scaled_splits()["train"].images.mean(0)
        return Preprocessing("centred", self.scale, {"mean": mean})

    def test_pixels(self) -> Tensor:
        """Pixels of the test images before scaling."""
        return (self.scaled_splits()["test"].images * self.scale).round()
