"""Images of a user's own: a folder for each class."""

import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import PIL
import torch
from torch import Tensor

from bclightning.data.base import ImageTensors
from bclightning.data.cache import cached_array
from bclightning.data.class_folders import SPLIT_FOLDERS, class_names_of, find_images
from bclightning.data.manifest import Entry, checksum, entries_of, manifest
from bclightning.data.standardized import MAX_BYTES_IN_MEMORY, StandardizedDataModule, name_of
from bclightning.data.stratified import check_fractions, stratified
from bclightning.data.threads import in_threads
from bclightning.errors import DataError
from bclightning.formatting import printable
from bclightning.image_files import Fit, decode, read_bounded, without_warnings
from bclightning.storage import expanded

# Of how pixels are decoded and ordered.
_VERSION = 1

# As many values as a packed model may take.
_MAX_VALUES = 2**24

logger = logging.getLogger(__name__)


class ImageFolder(StandardizedDataModule):
    """PNG, JPEG, BMP and WebP files of any size in a folder for each class, as torchvision has it.

    The layout is ``root/train/CLASS/IMAGE``, with ``val`` and ``test`` beside ``train``, or
    ``root/CLASS/IMAGE``. A split that has no folder is taken from the training images: the same
    share of each class, decided by `split_seed` and the files' names alone. The folders' names,
    sorted, are the classes.

    Images are turned upright as cameras say it, converted to grey or RGB and resized, once
    (`bclightning.image_files.decode`); one that has the size already keeps its pixels. Each channel
    is standardized with mean and standard deviation of the training split. ``bcl predict`` prepares
    images in the same way, whatever their size.

    Args:
        root: The folder; `None` for the environment variable ``BCL_DATA``, or for ``data`` where
            that is not set.
        size: Height and width that images are resized to: a number for squares, or
            ``[height, width]``.
        fit: What happens to an image of another aspect ratio. ``crop``: its centre is cut out, as
            large as possible, as torchvision's usual evaluation does; ``stretch``: it is distorted;
            ``pad``: it is put between black bars.
        channels: 3 for RGB, 1 for grey.
        batch_size: Number of images in a training batch.
        eval_batch_size: Number of images in a batch of validation, test and statistics.
        val_fraction: Share of the training images that validate, where there is no folder ``val``.
        test_fraction: Share of the training images that test, where there is no folder ``test``.
        split_seed: Seed of such a split. It is not the run's seed, so that all runs have the same
            split.
        skip_unreadable: Whether to leave out images that cannot be read, and say how many, instead
            of stopping at the first one.
        cache_dir: Folder for the resized images, which later commands read from there. If `None`,
            they are kept in memory; where they take more than 2 GB, in a memory-mapped file in
            ``root/.bclightning-cache``.
        seed: Seed of the shuffled order; `None` for the run's (``seed_everything``).

    Raises:
        ValueError: A size, a fraction or a seed is out of range.
        DataError: When images are loaded: the folder has another layout, or an image cannot be
            read.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for label, colour in (("grass", "green"), ("sky", "blue")):
        ...     (root / label).mkdir()
        ...     for number in range(4):
        ...         Image.new("RGB", (40, 30), colour).save(root / label / f"{number}.png")
        >>> data = ImageFolder(str(root), size=8, batch_size=2)
        >>> data.class_names, data.image_shape, data.split_sizes()
        (('grass', 'sky'), (3, 8, 8), {'train': 4, 'val': 2, 'test': 2})
    """

    _cache_name: ClassVar[str] = ".bclightning-cache"

    def __init__(
        self,
        root: str | None = None,
        size: int | list[int] = 32,
        fit: Fit = "crop",
        channels: int = 3,
        batch_size: int = 50,
        eval_batch_size: int = 1000,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        skip_unreadable: bool = False,
        cache_dir: str | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size, seed)
        self._shape = _checked_shape(channels, size)
        check_fractions(val_fraction=val_fraction, test_fraction=test_fraction)
        self.fit = fit
        self.fractions = {"val": val_fraction, "test": test_fraction}
        self.split_seed = split_seed
        self.skip_unreadable = skip_unreadable
        self.cache_dir = expanded(cache_dir) if cache_dir else None
        self.name = name_of(self.root)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Channels, height and width of a resized image."""
        return self._shape

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the class folders, sorted."""
        return class_names_of(self.root)

    def prepare_data(self) -> None:
        """Find the images, and resize them into the cache where there is one."""
        self.loaded_splits()

    def checksums(self) -> dict[str, str]:
        """SHA-256 of the manifest, which has a line for each image: SHA-256, size and path."""
        return {"manifest": checksum(self.manifest())}

    def manifest(self) -> str:
        """A line for each image that is used, sorted: SHA-256, size in bytes and path."""
        return manifest(sorted(self._files.entries, key=lambda entry: entry.name))

    def test_names(self) -> list[str]:
        """Paths of the test images below the root, in the order of the test split."""
        part = self._files.bounds["test"]
        return [entry.name for entry in self._files.entries[part]]

    def raw_splits(self) -> dict[str, ImageTensors]:
        """Read, decode and resize the images, uint8, or take them from the cache."""
        files = self._files
        images = self._pixels(files)
        labels = torch.tensor(files.labels)
        return {
            split: ImageTensors(images[part], labels[part]) for split, part in files.bounds.items()
        }

    @functools.cached_property
    def _files(self) -> "_Files":
        found = find_images(self.root)
        splits = found.splits
        if self.skip_unreadable:
            splits = {split: self._readable(files) for split, files in splits.items()}
        files = _Files.of(self.root, self._with_all_splits(splits, found.class_names))
        _warn_of_copies(files)
        return files

    def _readable(self, files: list[tuple[str, int]]) -> list[tuple[str, int]]:
        with without_warnings():
            reasons = list(in_threads(self._fault, [name for name, _ in files], "checking images"))
        bad = [name for (name, _), reason in zip(files, reasons, strict=True) if reason]
        if bad:
            logger.warning(
                "%d of %d images cannot be read and are left out, such as %s",
                len(bad),
                len(files),
                printable(bad[0]),
            )
        return [file for file, reason in zip(files, reasons, strict=True) if not reason]

    def _fault(self, name: str) -> str | None:
        try:
            self._decoded(name)
        except DataError as error:
            return str(error)
        return None

    def _with_all_splits(
        self, splits: dict[str, list[tuple[str, int]]], classes: Sequence[str]
    ) -> dict[str, list[tuple[str, int]]]:
        missing = {split: part for split, part in self.fractions.items() if split not in splits}
        for split, files in splits.items():
            present = {label for _, label in files}
            for label, name in enumerate(classes):
                if label not in present:
                    raise DataError(
                        f"no image of the class {printable(name)!r} in {split} can be read"
                    )
        if missing:
            training = splits["train"]
            names, labels = zip(*training, strict=True)
            parts = stratified(names, labels, classes, missing, self.split_seed)
            splits = splits | {
                split: [training[place] for place in places] for split, places in parts.items()
            }
        return {split: splits[split] for split in SPLIT_FOLDERS}

    def _pixels(self, files: "_Files") -> Tensor:
        shape = (len(files.entries), *self._shape)
        if self.cache_dir is None and np.prod(shape, dtype=np.int64) <= MAX_BYTES_IN_MEMORY:
            pixels = np.empty(shape, np.uint8)
            self._fill(files, pixels)
            return torch.from_numpy(pixels)
        depends_on = {
            "files": manifest(files.entries),
            "fit": self.fit,
            # Another version may decode or resize differently.
            "pillow": PIL.__version__,
            "version": _VERSION,
        }
        folder = self.cache_dir or self.root / self._cache_name
        return cached_array(
            folder, self.name, depends_on, shape, "uint8", functools.partial(self._fill, files)
        )

    def _fill(self, files: "_Files", pixels: npt.NDArray[Any]) -> None:
        names = [entry.name for entry in files.entries]
        with without_warnings():
            for place, image in enumerate(in_threads(self._decoded, names, "images")):
                pixels[place] = image

    def _decoded(self, name: str) -> npt.NDArray[np.uint8]:
        path = self.root / name
        try:
            return decode(read_bounded(path), self._shape, self.fit or "crop")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise DataError(
                f"the image {printable(str(path))} cannot be read: {printable(str(reason))}; "
                "remove it, or leave out such images with --data.skip_unreadable true"
            ) from error


class _Files:
    """The images of all splits, one split after the other.

    Attributes:
        entries: The files, with their checksums.
        labels: Their class indices.
        bounds: The part of each split.
    """

    def __init__(self, entries: list[Entry], labels: list[int], bounds: dict[str, slice]) -> None:
        self.entries = entries
        self.labels = labels
        self.bounds = bounds

    @classmethod
    def of(cls, root: Path, splits: dict[str, list[tuple[str, int]]]) -> "_Files":
        """Read the files' checksums."""
        every = [file for files in splits.values() for file in files]
        bounds, start = {}, 0
        for split, files in splits.items():
            bounds[split] = slice(start, start + len(files))
            start += len(files)
        entries = entries_of(root, [name for name, _ in every])
        return cls(entries, [label for _, label in every], bounds)


def _checked_shape(channels: int, size: int | list[int]) -> tuple[int, int, int]:
    sides = [size, size] if isinstance(size, int) else size
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"size must be a positive number or [height, width], and is {size}")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 3 for RGB or 1 for grey, and is {channels}")
    if channels * sides[0] * sides[1] >= _MAX_VALUES:
        raise ValueError(f"images of size {size} have {_MAX_VALUES:,} values or more; choose less")
    return channels, sides[0], sides[1]


def _warn_of_copies(files: _Files) -> None:
    training = {entry.sha256 for entry in files.entries[files.bounds["train"]]}
    for split in ("val", "test"):
        entries = files.entries[files.bounds[split]]
        copies = [entry.name for entry in entries if entry.sha256 in training]
        if copies:
            logger.warning(
                "%d of %d %s images are copies of training images, such as %s: the error will be "
                "too low",
                len(copies),
                len(entries),
                {"val": "validation", "test": "test"}[split],
                printable(copies[0]),
            )
