"""Write CIFAR-10 as PNG files in a folder for each class, as a folder of photos would be.

    python examples/cifar10_folder.py photos --images 200

CIFAR-10's own files are read from the folder that BCL_DATA names, or downloaded into ``data``.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from bclightning.data import CIFAR10
from bclightning.data.base import data_folder
from bclightning.data.cifar10 import extract, read_batch
from bclightning.data.files import obtain


def write_split(folder: Path, images: Tensor, labels: Tensor, limit: int | None) -> int:
    """Write the first images of each class, and return how many were written.

    Args:
        folder: Folder of the split, which is created.
        images: Images of shape (count, 3, height, width), uint8.
        labels: Class indices of shape (count,).
        limit: Number of images of each class; all if ``None``.
    """
    written = 0
    for label, name in enumerate(CIFAR10.class_names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for place in (labels == label).nonzero().flatten()[:limit].tolist():
            pixels = images[place].permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / name / f"{place:05}.png")
            written += 1
    return written


def main() -> None:
    """Write the training batches to FOLDER/train and the test batch to FOLDER/test."""
    parser = argparse.ArgumentParser(description="Write CIFAR-10 as PNG files in class folders.")
    parser.add_argument("folder", type=Path, help="folder to write into")
    parser.add_argument("--images", type=int, help="images of each class and split; all if absent")
    options = parser.parse_args()
    root = data_folder(None)
    missing = [file for file in CIFAR10.files if not (root / file.name).exists()]
    if missing:
        extract(obtain(CIFAR10.archive, root), missing, root)
    *training, test = CIFAR10.files
    for split, files in (("train", training), ("test", [test])):
        batches = [read_batch(file, root) for file in files]
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        count = write_split(options.folder / split, images, labels, options.images)
        print(f"{count} images in {options.folder / split}")


if __name__ == "__main__":
    main()
