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
from bclightning.seeds import derive_seed

Batch = tuple[Tensor, Tensor]
Transform = Callable[[Tensor], Tensor]


class ImageTensors(Dataset[Batch]):
    """Images and labels as two tensors; a batch is one indexing operation.

    Args:
        images: Of shape (count, channels, height, width).
        labels: Class indices of shape (count,), int64.
        transform: Applied to each batch of images, for data that is too large to hold transformed.

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
    """A shuffled order that is a function of the seed and the epoch, and of nothing before.

    Lightning tells samplers that have `set_epoch` which epoch begins, so a resumed run goes on in
    the order that it would have had.

    Args:
        count: Number of images.
        seed: The run's seed.

    Example:
        >>> sampler = EpochSampler(4, seed=0)
        >>> first = list(sampler)
        >>> sampler.set_epoch(1)
        >>> sorted(sampler) == sorted(first), list(sampler) == first
        (True, False)
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next order is for."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """The epoch's order."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        return iter(torch.randperm(self.count, generator=generator).tolist())

    def __len__(self) -> int:
        """Number of images."""
        return self.count


def as_it_is(batch: Any) -> Any:
    """What collates a batch that is one already."""
    return batch


class ImageDataModule(LightningDataModule):
    """What the benchmarks share: files, splits in memory, loaders of whole batches.

    A subclass says which files it needs and loads its splits; see `load_splits`.

    Args:
        root: The data folder, in torchvision's layout; the environment variable ``BCL_DATA``, else
            ``data``, when left out.
        batch_size: Training images a batch.
        eval_batch_size: Images a batch in validation, test and statistics, where size is only a
            matter of speed.
        seed: Of the shuffled order; the run's (``seed_everything``) when left out.

    Attributes:
        name: The data set's name in records and tables.
        image_shape: Channels, height and width of an image.
        class_names: What the classes are called.
        files: The files that it is made of.

    Raises:
        ValueError: A batch size is less than 1.
    """

    name: str
    image_shape: ClassVar[tuple[int, int, int]]
    class_names: ClassVar[tuple[str, ...]]
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
        if seed is not None and seed < 0:
            raise ValueError(f"seed must not be negative, and is {seed}")
        self.root = Path(root if root is not None else os.environ.get("BCL_DATA", "data"))
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        # Lightning keeps the run's seed there, for its own distributed sampler too.
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
        self._splits: dict[str, ImageTensors] = {}

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def load_splits(self) -> dict[str, ImageTensors]:
        """Load ``train``, ``val`` and ``test``, from files that are there and verified."""
        raise NotImplementedError

    def preprocessing(self) -> Preprocessing:
        """What is done with the pixels of the files, for networks that leave the project."""
        raise NotImplementedError

    def test_pixels(self) -> Tensor:
        """The test images as the files have them, before any preprocessing, in file order."""
        raise NotImplementedError

    def split_sizes(self) -> dict[str, int]:
        """Number of images in each split."""
        return {split: len(images) for split, images in self.loaded_splits().items()}

    def checksums(self) -> dict[str, str]:
        """MD5 of each file that the data set is made of, by name."""
        return {file.name: file.md5 for file in self.files}

    def prepare_data(self) -> None:
        """Make sure of all files, downloading what is missing.

        Raises:
            DataError: A file is damaged, or missing and not to be had.
        """
        for file in self.files:
            obtain(file, self.root)

    def setup(self, stage: str) -> None:
        """Load the splits, once."""
        training = len(self.loaded_splits()["train"])
        if self.batch_size > training:
            raise UserError(
                f"batch_size {self.batch_size} is more than the {training} training images of "
                f"{self.name}; give a smaller --data.batch_size"
            )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled training batches, all of the same size.

        The rest of an epoch that fills no batch is left out: batch normalization of a few images,
        or one, is not that of a batch. The paper's batch sizes leave nothing.
        """
        data = self.loaded_splits()["train"]
        return DataLoader(
            data,
            batch_size=self.batch_size,
            sampler=EpochSampler(len(data), self.seed),
            drop_last=True,
            collate_fn=as_it_is,
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """Validation images in file order."""
        return self._in_order(self.loaded_splits()["val"])

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test images in file order."""
        return self._in_order(self.loaded_splits()["test"])

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Test images in file order, to be classified."""
        return self.test_dataloader()

    def statistics_dataloader(self, limit: int | None = None) -> DataLoader[Batch]:
        """Training images in a fixed order, for estimates over the training set.

        Args:
            limit: How many images at most, evenly spread over the split; all when left out.

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
        return DataLoader(data, batch_size=self.eval_batch_size, collate_fn=as_it_is)

    def loaded_splits(self) -> dict[str, ImageTensors]:
        """The splits, loaded at the first call."""
        if not self._splits:
            self._splits = self.load_splits()
        return self._splits

    def use_splits(self, splits: dict[str, ImageTensors]) -> None:
        """Use splits that another data module has loaded, of the same data."""
        self._splits = splits


class CachedImageDataModule(ImageDataModule):
    """A data set whose images are arranged or whitened once and kept on the disk.

    Args:
        root: See `ImageDataModule`.
        batch_size: See `ImageDataModule`.
        eval_batch_size: See `ImageDataModule`.
        seed: See `ImageDataModule`.
        cache_dir: Where the images go; ``root/bclightning-cache`` when left out.
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
        self.cache_dir = Path(cache_dir) if cache_dir else self.root / "bclightning-cache"


class CentredImageDataModule(ImageDataModule):
    """A data set whose images lie in [0, 1], less the training images' mean, pixel by pixel.

    The test images too are centred with the training images' mean, for theirs is not to be known.

    Attributes:
        scale: What the files' pixels are divided by.
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
        """The test images before they were scaled."""
        return (self.scaled_splits()["test"].images * self.scale).round()
