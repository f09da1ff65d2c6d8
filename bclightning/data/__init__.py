"""The data sets: verified files in, batches of tensors out."""

from bclightning.data.arrays import Arrays
from bclightning.data.base import ImageDataModule
from bclightning.data.cifar10 import CIFAR10
from bclightning.data.digits import Digits
from bclightning.data.image_folder import ImageFolder
from bclightning.data.mnist import MNIST
from bclightning.data.svhn import SVHN

__all__ = ["CIFAR10", "MNIST", "SVHN", "Arrays", "Digits", "ImageDataModule", "ImageFolder"]
