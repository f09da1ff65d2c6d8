"""The handwritten digits that come with scikit-learn: 8 x 8 pixels, no download."""

from typing import ClassVar

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from bclightning.data.base import CentredImageDataModule, ImageTensors

TEST_IMAGES = 300
VALIDATION_IMAGES = 300

# The split is part of the data set: the same for every seed of training.
SPLIT_SEED = 0


class Digits(CentredImageDataModule):
    """1797 digits of 8 x 8 pixels in [0, 1], centred: 1197 to train, 300 to validate, 300 to test.

    The splits are stratified and fixed. The arguments are those of `ImageDataModule`; no files are
    needed.

    Example:
        >>> data = Digits()
        >>> data.split_sizes()
        {'train': 1197, 'val': 300, 'test': 300}
    """

    name: str = "digits"
    scale: ClassVar[float] = 16.0
    image_shape: tuple[int, int, int] = (1, 8, 8)
    class_names: tuple[str, ...] = tuple("0123456789")

    def scaled_splits(self) -> dict[str, ImageTensors]:
        """Split scikit-learn's arrays."""
        pixels, labels = load_digits(return_X_y=True)
        images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8) / self.scale
        targets = torch.tensor(labels, dtype=torch.int64)
        rest, test = train_test_split(
            range(len(targets)), test_size=TEST_IMAGES, stratify=labels, random_state=SPLIT_SEED
        )
        train, val = train_test_split(
            rest, test_size=VALIDATION_IMAGES, stratify=labels[rest], random_state=SPLIT_SEED
        )
        indices = {"train": train, "val": val, "test": test}
        return {
            split: ImageTensors(images[chosen], targets[chosen])
            for split, chosen in indices.items()
        }
