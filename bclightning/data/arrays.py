"""Arrays of a user's own: images, spectrograms, signals or vectors, with labels."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bclightning.data.array_files import LAYOUT, Array, ArrayFile, find_arrays
from bclightning.data.base import ImageTensors
from bclightning.data.cache import cached_array
from bclightning.data.class_folders import SPLIT_FOLDERS
from bclightning.data.manifest import entries_of
from bclightning.data.standardized import MAX_BYTES_IN_MEMORY, StandardizedDataModule, name_of
from bclightning.data.stratified import check_fractions, stratified
from bclightning.errors import DataError
from bclightning.formatting import printable
from bclightning.storage import expanded

IMAGES = ("images", "x", "X", "data", "inputs")
"""What the array of images, signals or vectors may be called."""

LABELS = ("labels", "y", "targets", "target")
"""What the array of labels may be called."""

ChannelAxis = Literal["first", "last", "none"]

Places = npt.NDArray[np.int64]

_NAMES = "class_names"

_MAX_CLASSES = 100_000

# Rows that are looked at together.
_ROWS = 4096


class Arrays(StandardizedDataModule):
    """Arrays of NumPy: images, spectrograms, signals or vectors of numbers, and their labels.

    `root` is a ``.npz`` file with ``images`` and ``labels``, which are split, or with
    ``train_images``, ``train_labels``, ``val_images`` and so on; or a folder with ``.npy`` files of
    these names, which are mapped and may be larger than memory; or a folder with ``train.npz``,
    ``val.npz`` and ``test.npz``. ``x`` and ``y`` do as well, and ``x_train``. A split that is
    missing is taken from the training images: the same share of each class, decided by
    `split_seed`. Pickled objects are refused.

    Labels are integers from 0. Values of type uint8 are pixels and divided by 255; others become
    float32. Each channel, or each feature of vectors, is standardized with mean and standard
    deviation of the training split, which a packed model holds.

    Args:
        root: The file or the folder; `None` for the environment variable ``BCL_DATA``, or for
            ``data`` where that is not set.
        channel_axis: Where the channels are: ``first``, as (count, channels, height, width) or
            (count, channels, length) or vectors (count, features); ``last``; or ``none``, as in
            (count, height, width), which becomes one channel.
        class_names: Names of the classes; if `None`, those of an array ``class_names``, else the
            labels.
        batch_size: Number of images in a training batch.
        eval_batch_size: Number of images in a batch of validation, test and statistics.
        val_fraction: Share of the training images that validate, where there is no array of them.
        test_fraction: Share of the training images that test, where there is no array of them.
        split_seed: Seed of such a split, which is not the run's.
        cache_dir: Folder for arrays of more than 2 GB that have to be split or converted; if
            `None`, ``.bclightning-cache`` beside the files.
        seed: Seed of the shuffled order; `None` for the run's (``seed_everything``).

    Raises:
        ValueError: A fraction is out of range.
        DataError: When arrays are loaded: one is missing, damaged, of another shape, not finite, or
            labels are not integers from 0.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> file = Path(tempfile.mkdtemp()) / "sensors.npz"
        >>> np.savez(file, x=np.random.rand(40, 6), y=np.arange(40) % 2)
        >>> data = Arrays(str(file), batch_size=10, class_names=["still", "moving"])
        >>> data.image_shape, data.class_names, data.split_sizes()
        ((6,), ('still', 'moving'), {'train': 32, 'val': 4, 'test': 4})
    """

    def __init__(
        self,
        root: str | None = None,
        channel_axis: ChannelAxis | None = None,
        class_names: list[str] | None = None,
        batch_size: int = 50,
        eval_batch_size: int = 1000,
        val_fraction: float = 0.1,
        test_fraction: float = 0.1,
        split_seed: int = 0,
        cache_dir: str | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(root, batch_size, eval_batch_size, seed)
        check_fractions(val_fraction=val_fraction, test_fraction=test_fraction)
        self.channel_axis = channel_axis
        self.fractions = {"val": val_fraction, "test": test_fraction}
        self.split_seed = split_seed
        self.name = name_of(self.root.with_suffix("") if self.root.is_file() else self.root)
        self.cache_dir = expanded(cache_dir) if cache_dir else None
        self._given_names = class_names

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image, signal or vector, channels first."""
        return self._shape_of(self._sources["train"][0])[1:]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes: as given, from the array ``class_names``, or the labels."""
        classes = self._classes
        if self._given_names is not None:
            names = tuple(self._given_names)
        elif _NAMES in self._arrays:
            names = tuple(str(name) for name in self._arrays[_NAMES].load().reshape(-1))
        else:
            names = tuple(str(label) for label in range(classes))
        if len(names) != classes:
            raise DataError(
                f"there are {len(names)} class names, and the labels go from 0 to {classes - 1}; "
                "give a name for each with --data.class_names"
            )
        return names

    def prepare_data(self) -> None:
        """Find and check the arrays."""
        self.loaded_splits()

    def checksums(self) -> dict[str, str]:
        """SHA-256 of each file, by name."""
        paths = sorted({file.path for pair in self._sources.values() for file in pair})
        folder = self._folder
        names = [path.relative_to(folder).as_posix() for path in paths]
        return {entry.name: entry.sha256 for entry in entries_of(folder, names)}

    def raw_splits(self) -> dict[str, ImageTensors]:
        """Load and check the arrays, and split them where they are not."""
        self._check_shapes()
        classes, parts = self._classes, self._places()
        splits: dict[str, ImageTensors] = {}
        for split in SPLIT_FOLDERS:
            source, places = parts[split]
            images, labels = self._sources[source]
            own = _labels(labels)
            if own.max() >= classes:
                raise DataError(
                    f"{labels} has the label {own.max()}, and those of the training images go up "
                    f"to {classes - 1}"
                )
            chosen = own if places is None else own[places]
            splits[split] = ImageTensors(
                self._values(images, places, split), torch.from_numpy(chosen)
            )
        if len({data.images.dtype for data in splits.values()}) > 1:
            raise DataError(
                f"{printable(str(self.root))} holds pixels (uint8) in some splits and other "
                "numbers in others; save all as one type"
            )
        return splits

    @functools.cached_property
    def _arrays(self) -> Mapping[str, ArrayFile]:
        return find_arrays(self.root)

    @functools.cached_property
    def _sources(self) -> dict[str, tuple[ArrayFile, ArrayFile]]:
        """Where images and labels of each split are that has arrays of its own."""
        found = {}
        for split, prefixes in SPLIT_FOLDERS.items():
            pair = [_find(self._arrays, prefixes, names) for names in (IMAGES, LABELS)]
            if split == "train" and pair == [None, None]:
                pair = [_find(self._arrays, ("",), names) for names in (IMAGES, LABELS)]
            images, labels = pair
            if images is not None and labels is not None:
                found[split] = (images, labels)
            elif images is not None or labels is not None or split == "train":
                what = "labels" if labels is None else "images"
                raise DataError(f"{printable(str(self.root))} has no {split} {what}: {LAYOUT}")
        return found

    @property
    def _folder(self) -> Path:
        return self.root.parent if self.root.is_file() else self.root

    @functools.cached_property
    def _classes(self) -> int:
        """Number of classes: training has each of them."""
        source = self._sources["train"][1]
        counts = np.bincount(_labels(source))
        if len(counts) < 2:
            raise DataError(f"{source} has one class, and a classifier needs two")
        if not counts.all():
            raise DataError(
                f"{source} goes up to {len(counts) - 1}, and no label is {int(counts.argmin())}; "
                "number the classes from 0 without gaps"
            )
        return len(counts)

    def _shape_of(self, source: ArrayFile) -> tuple[int, ...]:
        """Shape of an array with its channels after the first axis, from its header."""
        # Of no values: only the axes are moved.
        like = np.broadcast_to(np.zeros((), np.uint8), source.shape())
        return _channels_first(like, self.channel_axis, source).shape

    def _check_shapes(self) -> None:
        for split, (images, labels) in self._sources.items():
            count, *sides = self._shape_of(images)
            shape, of_labels = tuple(sides), len(_labels(labels))
            if count != of_labels:
                raise DataError(f"{images} holds {count} images, and {labels} {of_labels} labels")
            if shape != self.image_shape:
                raise DataError(
                    f"images of {split} have the shape {shape}, and those of train "
                    f"{self.image_shape}"
                )

    def _places(self) -> dict[str, tuple[str, Places | None]]:
        """For each split the arrays that it comes from, and its rows; `None` for all."""
        parts: dict[str, tuple[str, Places | None]]
        parts = {split: (split, None) for split in self._sources}
        missing = {split: part for split, part in self.fractions.items() if split not in parts}
        if missing:
            labels = _labels(self._sources["train"][1]).tolist()
            numbers = [str(place) for place in range(len(labels))]
            found = stratified(numbers, labels, self.class_names, missing, self.split_seed)
            parts |= {split: ("train", np.array(places)) for split, places in found.items()}
        return parts

    def _values(self, source: ArrayFile, places: Places | None, split: str) -> Tensor:
        """Rows of an array, uint8 or float32 and finite; mapped where they can be."""
        array = _channels_first(source.load(), self.channel_axis, source)
        dtype = np.uint8 if array.dtype == np.uint8 else np.float32
        if places is None and array.dtype == dtype and array.flags.c_contiguous:
            _check_finite(array, source)
            return torch.from_numpy(array)
        shape = (len(array) if places is None else len(places), *array.shape[1:])

        def fill(values: Array) -> None:
            for start in range(0, len(values), _ROWS):
                rows = slice(start, start + _ROWS)
                with np.errstate(over="ignore"):
                    values[rows] = array[rows if places is None else places[rows]]
            _check_finite(values, source)

        if np.prod(shape, dtype=np.int64) * np.dtype(dtype).itemsize <= MAX_BYTES_IN_MEMORY:
            values = np.empty(shape, dtype)
            fill(values)
            return torch.from_numpy(values)
        depends_on = {
            "files": self.checksums(),
            "axis": self.channel_axis,
            "fractions": self.fractions,
            "seed": self.split_seed,
            "split": split,
        }
        folder = self.cache_dir or self._folder / ".bclightning-cache"
        return cached_array(folder, self.name, depends_on, shape, np.dtype(dtype).name, fill)


def _find(
    arrays: Mapping[str, ArrayFile], prefixes: Sequence[str], names: Sequence[str]
) -> ArrayFile | None:
    for prefix in prefixes:
        for name in names:
            for key in (f"{prefix}_{name}", f"{name}_{prefix}") if prefix else (name,):
                if key in arrays:
                    return arrays[key]
    return None


def _channels_first(array: Array, axis: ChannelAxis | None, source: ArrayFile) -> Array:
    """The array with its channels after the first axis."""
    if array.dtype.kind not in "uifb":
        raise DataError(f"{source} holds values of type {array.dtype}; save it as float32 or uint8")
    if not 2 <= array.ndim <= 4 or not array.size:
        raise DataError(
            f"{source} has the shape {array.shape}; expected (count, channels, height, width), "
            "(count, channels, length) or (count, features), and at least one value"
        )
    match axis:
        case "none" if array.ndim < 4:
            return array[:, None]
        case "last" if array.ndim > 2:
            return np.moveaxis(array, -1, 1)
        case "none" | "last":
            raise DataError(
                f"{source} has the shape {array.shape}, which does not go with "
                f"--data.channel_axis {axis}"
            )
        case None if array.ndim == 4 and array.shape[3] in (1, 3) and array.shape[1] not in (1, 3):
            raise DataError(
                f"{source} has the shape {array.shape}, as if its channels came last; give "
                "--data.channel_axis last, or first if they come first"
            )
    return array


def _labels(source: ArrayFile) -> npt.NDArray[np.int64]:
    """Class indices, checked."""
    labels = source.load()
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not labels.size:
        raise DataError(
            f"{source} has the shape {labels.shape} and the type {labels.dtype}; labels are one "
            "integer for each image, from 0"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= _MAX_CLASSES:
        raise DataError(
            f"{source} has labels from {low} to {high}; number the classes from 0 without gaps"
        )
    return labels.astype(np.int64)


def _check_finite(values: Array, source: ArrayFile) -> None:
    if values.dtype.kind != "f":
        return
    for start in range(0, len(values), _ROWS):
        finite = np.isfinite(values[start : start + _ROWS])
        if not finite.all():
            row = start + int(np.argwhere(~finite)[0, 0])
            raise DataError(
                f"{source} contains NaN or infinity, or numbers beyond float32, first in image "
                f"{row}; replace or remove them"
            )
