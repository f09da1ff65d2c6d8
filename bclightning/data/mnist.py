"""MNIST, read from its published files (section 3.1)."""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from bclightning.data.base import CentredImageDataModule, ImageTensors
from bclightning.data.files import DataFile, obtain
from bclightning.errors import DataError

VALIDATION_IMAGES = 10_000

_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)


def _file(name: str, md5: str, size: int) -> DataFile:
    return DataFile(f"MNIST/raw/{name}", md5, size, tuple(mirror + name for mirror in _MIRRORS))


def read_idx(path: Path) -> Tensor:
    """Read a gzipped IDX file of unsigned bytes.

    Args:
        path: Path of the file.

    Raises:
        DataError: The file is truncated, or not of this format.
    """
    try:
        content = gzip.decompress(path.read_bytes())
        zeros, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(f"{path} is not a gzipped IDX file") from error
    start = 4 + 4 * dimensions
    if zeros != 0 or kind != 8 or len(content) - start != math.prod(shape):
        raise DataError(f"{path} is not a complete IDX file of unsigned bytes")
    pixels = np.frombuffer(content, np.uint8, offset=start).reshape(shape)
    return torch.from_numpy(pixels.copy())


class MNIST(CentredImageDataModule):
    """60,000 and 10,000 digits of 28 x 28 pixels in [0, 1], the training images' mean subtracted.

    The last 10,000 training images are the validation set. The arguments are those of
    `ImageDataModule`; the files are in ``root/MNIST/raw``, as in torchvision.

    Raises:
        DataError: In `prepare_data`: a file is damaged, or missing and cannot be downloaded.
    """

    name: str = "mnist"
    scale: ClassVar[float] = 255.0
    image_shape: ClassVar[tuple[int, int, int]] = (1, 28, 28)
    class_names: ClassVar[tuple[str, ...]] = tuple("0123456789")
    validation_images: ClassVar[int] = VALIDATION_IMAGES
    files: ClassVar[tuple[DataFile, ...]] = (
        _file("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873", 9_912_422),
        _file("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432", 28_881),
        _file("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3", 1_648_877),
        _file("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c", 4_542),
    )

    def scaled_splits(self) -> dict[str, ImageTensors]:
        """Read the four files and split."""
        train, train_labels, test, test_labels = (
            read_idx(obtain(file, self.root)) for file in self.files
        )
        cut = len(train) - self.validation_images
        return {
            "train": self._images(train[:cut], train_labels[:cut]),
            "val": self._images(train[cut:], train_labels[cut:]),
            "test": self._images(test, test_labels),
        }

    def _images(self, pixels: Tensor, labels: Tensor) -> ImageTensors:
        return ImageTensors(pixels.unsqueeze(1).float() / self.scale, labels.long())
