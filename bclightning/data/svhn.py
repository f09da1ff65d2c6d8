"""SVHN, cropped digits (format 2), contrast-normalized batch by batch (section 3.3)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import scipy.io
from scipy.io.matlab import MatReadError
from torch import Tensor

from bclightning.data.base import CachedImageDataModule, ImageTensors
from bclightning.data.cache import cached_array
from bclightning.data.files import DataFile, obtain
from bclightning.errors import DataError
from bclightning.preprocessing import Preprocessing

# Validation images of each class, taken from the two training files (section 3.3).
VALIDATION_FROM_TRAIN = 400
VALIDATION_FROM_EXTRA = 200

_ARRANGEMENT = 1


def _file(name: str, md5: str, size: int) -> DataFile:
    return DataFile(name, md5, size, (f"http://ufldl.stanford.edu/housenumbers/{name}",))


PREPROCESSING = Preprocessing("contrast-normalized", 1.0)


class SVHN(CachedImageDataModule):
    """598,388 training, 6,000 validation and 26,032 test images of 32 x 32 pixels in colour.

    The validation set is balanced: it has the last 400 images of each class in ``train`` and the
    last 200 in ``extra``. A random choice would put digits of one photograph, which are neighbours
    in the files, into both training and validation. The images are kept as bytes, mapped from a
    cache of 1.9 GB, and each batch is normalized when it is used, globally and locally, in all
    three channels. The arguments are those of `CachedImageDataModule`; the three ``.mat`` files are
    in `root`.

    Raises:
        DataError: In `prepare_data`: a file is damaged, or missing and cannot be downloaded.
    """

    name: str = "svhn"
    image_shape: tuple[int, int, int] = (3, 32, 32)
    class_names: tuple[str, ...] = tuple("0123456789")
    validation_counts: ClassVar[tuple[int, int]] = (VALIDATION_FROM_TRAIN, VALIDATION_FROM_EXTRA)
    # Number of images in train, extra and test; known before the large files are read.
    counts: ClassVar[tuple[int, int, int]] = (73_257, 531_131, 26_032)
    files: ClassVar[tuple[DataFile, ...]] = (
        _file("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373", 182_040_794),
        _file("extra_32x32.mat", "a93ce644f1a588dc4d68dda5feec44a7", 1_329_278_602),
        _file("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3", 64_275_384),
    )

    def prepare_data(self) -> None:
        """Verify the files, downloading what is missing, and arrange their images in the cache."""
        super().prepare_data()
        self.loaded_splits()

    def load_splits(self) -> dict[str, ImageTensors]:
        """Read the images from the cache, or arrange them there."""
        total = sum(self.counts)
        validating = sum(self.validation_counts) * self.num_classes
        training = self.counts[0] + self.counts[1] - validating

        def arrange(pixels: npt.NDArray[Any]) -> None:
            # Train, validation and test one after the other, each in file order, with one file in
            # memory at a time.
            places = {"train": 0, "val": training, "test": training + validating}
            for split, images, _ in self._parts():
                pixels[places[split] : places[split] + len(images)] = images
                places[split] += len(images)

        def arrange_labels(labels: npt.NDArray[Any]) -> None:
            places = {"train": 0, "val": training, "test": training + validating}
            for split, _, part in self._parts(pixels=False):
                labels[places[split] : places[split] + len(part)] = part
                places[split] += len(part)

        depends_on = {
            "files": self.checksums(),
            "counts": self.counts,
            "validation": self.validation_counts,
            "arrangement": _ARRANGEMENT,
        }
        images = cached_array(
            self.cache_dir, "svhn-images", depends_on, (total, *self.image_shape), "uint8", arrange
        )
        labels = cached_array(
            self.cache_dir, "svhn-labels", depends_on, (total,), "int64", arrange_labels
        ).clone()
        bounds = {
            "train": slice(0, training),
            "val": slice(training, training + validating),
            "test": slice(training + validating, total),
        }
        return {
            split: ImageTensors(images[part], labels[part], PREPROCESSING.apply)
            for split, part in bounds.items()
        }

    def preprocessing(self) -> Preprocessing:
        """Contrast normalization of each image, globally and locally."""
        return PREPROCESSING

    def test_pixels(self) -> Tensor:
        """Pixels of the test images, uint8."""
        return self.loaded_splits()["test"].images

    def _parts(
        self, *, pixels: bool = True
    ) -> Iterator[tuple[str, npt.NDArray[np.uint8], npt.NDArray[np.int64]]]:
        """Pieces of the files in file order: split, images (empty without `pixels`), labels."""
        validation = [*self.validation_counts, 0]
        for file, count, held_out in zip(self.files, self.counts, validation, strict=True):
            images, labels = read_mat(obtain(file, self.root), pixels=pixels)
            if len(labels) != count:
                raise DataError(f"{file.name} contains {len(labels)} images instead of {count}")
            if file is self.files[2]:
                yield "test", images, labels
                continue
            validates = last_of_each_class(labels, held_out, self.num_classes)
            yield "val", images[validates[: len(images)]], labels[validates]
            # Runs between held-out images are slices, so that no copy of the large file is made.
            for start, stop in _runs(~validates):
                yield "train", images[start:stop], labels[start:stop]


def last_of_each_class(
    labels: npt.NDArray[np.int64], count: int, classes: int
) -> npt.NDArray[np.bool_]:
    """A mask of the last `count` images of each class.

    Args:
        labels: Class indices of shape (images,).
        count: Number of images of each class.
        classes: Number of classes.

    Raises:
        DataError: A class has fewer images.

    Example:
        >>> last_of_each_class(np.array([1, 0, 1, 0]), 1, classes=2)
        array([False, False,  True,  True])
    """
    chosen = np.zeros(len(labels), bool)
    for label in range(classes):
        places = np.flatnonzero(labels == label)
        if len(places) < count:
            raise DataError(f"class {label} has {len(places)} images, too few to hold out {count}")
        chosen[places[len(places) - count :]] = True
    return chosen


def read_mat(
    path: Path, *, pixels: bool = True
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Read images (count, 3, 32, 32) and labels (count,); the label 10 is the digit 0.

    Args:
        path: Path of the file.
        pixels: Whether to read the images; if not, their array is empty.

    Raises:
        DataError: The file is not of SVHN's format 2.
    """
    try:
        content = scipy.io.loadmat(str(path), variable_names=["X", "y"] if pixels else ["y"])
        labels = content["y"].reshape(-1).astype(np.int64) % 10
        if not pixels:
            return np.empty((0, 3, 32, 32), np.uint8), labels
        # Height, width, channel, image, the last one slowest: a view, image by image.
        images = content["X"].transpose(3, 2, 0, 1)
    except (MatReadError, ValueError, TypeError, KeyError, OSError, NotImplementedError) as error:
        raise DataError(f"{path} is not a file of SVHN's format 2") from error
    if images.shape[1:] != (3, 32, 32) or images.dtype != np.uint8 or len(images) != len(labels):
        raise DataError(f"{path} is not a file of SVHN's format 2")
    return images, labels


def _runs(chosen: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
