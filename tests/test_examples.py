"""The scripts in examples/ run as their users run them, on small data."""

import runpy
import sys
from pathlib import Path

import torch
from PIL import Image

from bclightning.data import CIFAR10, ImageFolder
from bclightning.data.cifar10 import read_batch

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_cifar10_as_class_folders(cifar10_root, folder, monkeypatch, capsys):
    monkeypatch.setenv("BCL_DATA", str(cifar10_root))
    monkeypatch.setattr(sys, "argv", ["cifar10_folder.py", "photos", "--images", "3"])
    runpy.run_path(str(EXAMPLES / "cifar10_folder.py"), run_name="__main__")
    assert "30 images in photos/test" in capsys.readouterr().out
    data = ImageFolder("photos", batch_size=5, val_fraction=0.4)
    assert data.class_names == CIFAR10.class_names
    assert data.split_sizes() == {"train": 20, "val": 10, "test": 30}
    # A PNG of the size keeps CIFAR-10's own pixels.
    images, labels = read_batch(CIFAR10.files[-1], cifar10_root)
    first = images[(labels == 0).nonzero()[0, 0]]
    assert torch.equal(data.test_pixels()[0], first)
    assert Image.open("photos/test/airplane/00000.png").size == (32, 32)
