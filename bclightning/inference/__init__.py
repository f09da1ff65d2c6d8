"""The packed model: a trained network as a file of one bit a weight, and what runs it."""

from bclightning.inference.checksum import DamagedFileError
from bclightning.inference.packed import PackedModel
from bclightning.inference.runtime import PackedNetwork, load

__all__ = ["DamagedFileError", "PackedModel", "PackedNetwork", "load"]
