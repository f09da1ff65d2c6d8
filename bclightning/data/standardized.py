"""Data of a user's own, standardized with the statistics of the training split."""

import re
from pathlib import Path

import torch
from torch import Tensor

from bclightning.data.base import ImageDataModule, ImageTensors
from bclightning.image_files import Fit
from bclightning.preprocessing import Preprocessing

MAX_BYTES_IN_MEMORY = 2**31
"""What takes more is kept in a memory-mapped file."""

# Divisor of values of 8 bits, which are pixels.
PIXEL_SCALE = 255.0

# Values that are added up at once, in float64: statistics do not depend on the machine's memory.
_CHUNK = 2**22

# In float32 smaller ones would make numbers overflow.
SMALLEST_DEVIATION = 1e-30


class StandardizedDataModule(ImageDataModule):
    """Data whose channels, or features, have mean 0 and standard deviation 1 in training.

    The values stay as they are in memory, uint8 or float32, and each batch is standardized when it
    is used. A packed model holds the statistics.

    Attributes:
        fit: How images of another size are resized; `None` for data that are no image files.
    """

    fit: Fit | None = None
    _statistics: Preprocessing | None = None

    def raw_splits(self) -> dict[str, ImageTensors]:
        """Load ``train``, ``val`` and ``test``, with values as they are in the files."""
        raise NotImplementedError

    def load_splits(self) -> dict[str, ImageTensors]:
        """Load the splits, and find the statistics of the first one."""
        splits = self.raw_splits()
        self._statistics = self._standardizing(splits)
        for split in splits.values():
            split.transform = self._statistics.apply
        return splits

    def preprocessing(self) -> Preprocessing:
        """The scale, and mean and standard deviation of each channel, or of each feature."""
        splits = self.loaded_splits()
        if self._statistics is None:
            self._statistics = self._standardizing(splits)
        return self._statistics

    def test_pixels(self) -> Tensor:
        """Values of the test split as they are in the files, or in resized images."""
        return self.loaded_splits()["test"].images

    def _standardizing(self, splits: dict[str, ImageTensors]) -> Preprocessing:
        values = splits["train"].images
        scale = PIXEL_SCALE if values.dtype == torch.uint8 else 1.0
        mean, deviation = channel_statistics(values, scale)
        tensors = {"mean": mean, "deviation": deviation}
        return Preprocessing("standardized", scale, tensors, self.fit)


def channel_statistics(values: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, or of each feature of vectors.

    They are computed in float64, chunk by chunk. Where all values are equal, the deviation is 1.

    Args:
        values: Values of shape (count, channels, ...) or (count, features).
        scale: Divisor of the values.

    Returns:
        Two tensors of shape (channels, 1, ...), or (features,), float32.

    Example:
        >>> mean, deviation = channel_statistics(torch.tensor([[0, 7], [4, 7]]), scale=1.0)
        >>> mean, deviation
        (tensor([2., 7.]), tensor([2., 1.]))
    """
    over = [0, *range(2, values.dim())]
    count = values.numel() // values.shape[1]
    chunks = torch.split(values, max(1, _CHUNK * len(values) // max(1, values.numel())))
    shape = (-1, *[1] * (values.dim() - 2))
    total = sum((chunk.double().sum(over) for chunk in chunks), torch.zeros(values.shape[1]))
    mean = (total / count).view(shape)
    # In a second pass, since the difference of two large sums would lose all digits.
    squares = sum(
        ((chunk.double() - mean).square().sum(over) for chunk in chunks),
        torch.zeros(values.shape[1]),
    )
    deviation = (squares / count).sqrt().view(shape)
    varies = deviation > (1e-12 * mean.abs()).clamp_min(SMALLEST_DEVIATION)
    deviation = torch.where(varies, deviation / scale, 1.0)
    return (mean / scale).float(), deviation.float()


def name_of(root: Path) -> str:
    """The folder's name, as the name of a data set and of its runs.

    Example:
        >>> name_of(Path("my photos (2024)"))
        'my-photos-2024'
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", root.absolute().name).strip("-._")
    return name[:32] or "images"
