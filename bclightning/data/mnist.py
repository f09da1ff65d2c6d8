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


def _file(name: str, md5: str, size: int, unpacked_md5: str, unpacked_size: int) -> DataFile:
    urls = tuple(mirror + name for mirror in _MIRRORS)
    path = f"MNIST/raw/{name}"
    unpacked = DataFile(path.removesuffix(".gz"), unpacked_md5, unpacked_size)
    return DataFile(path, md5, size, urls, unpacked)


def read_idx(path: Path) -> Tensor:
    """Read an IDX file of unsigned bytes.

    Args:
        path: Path of the file, which is gzipped if its name ends in ``.gz``.

    Raises:
        DataError: The file is truncated, or not of this format.
    """
    zipped = path.suffix == ".gz"
    try:
        content = gzip.decompress(path.read_bytes()) if zipped else path.read_bytes()
        zeros, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        kind_of_file = "a gzipped IDX file" if zipped else "an IDX file"
        raise DataError(f"{path} is not {kind_of_file}") from error
    start = 4 + 4 * dimensions
    if zeros != 0 or kind != 8 or len(content) - start != math.prod(shape):
        raise DataError(f"{path} is not a complete IDX file of unsigned bytes")
    pixels = np.frombuffer(content, np.uint8, offset=start).reshape(shape)
    return torch.from_numpy(pixels.copy())


class MNIST(CentredImageDataModule):
    """60,000 and 10,000 digits of 28 x 28 pixels in [0, 1], the training images' mean subtracted.

    The last 10,000 training images are the validation set. The arguments are those of
    `ImageDataModule`; the files are in ``root/MNIST/raw``, as in torchvision, gzipped or not.

    Raises:
        DataError: In `prepare_data`: a file is damaged, or missing and cannot be downloaded.
    """

    name: str = "mnist"
    scale: ClassVar[float] = 255.0
    image_shape: tuple[int, int, int] = (1, 28, 28)
    class_names: tuple[str, ...] = tuple("0123456789")
    validation_images: ClassVar[int] = VALIDATION_IMAGES
    files: ClassVar[tuple[DataFile, ...]] = (
        _file(
            "train-images-idx3-ubyte.gz",
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            9_912_422,
            "6bbc9ace898e44ae57da46a324031adb",
            47_040_016,
        ),
        _file(
            "train-labels-idx1-ubyte.gz",
            "d53e105ee54ea40749a09fcbcd1e9432",
            28_881,
            "a25bea736e30d166cdddb491f175f624",
            60_008,
        ),
        _file(
            "t10k-images-idx3-ubyte.gz",
            "9fb629c4189551a2d022fa330f9573f3",
            1_648_877,
            "2646ac647ad5339dbf082846283269ea",
            7_840_016,
        ),
        _file(
            "t10k-labels-idx1-ubyte.gz",
            "ec29112dd5afa0611ce80d1b7f02629c",
            4_542,
            "27ae3e4e09519cfbb04c329615203637",
            10_008,
        ),
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
