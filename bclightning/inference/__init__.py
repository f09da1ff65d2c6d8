"""The packed model: a network as a file of one bit a weight, and as a torch module again."""

from bclightning.inference.packed import PackedModel
from bclightning.inference.runtime import PackedNetwork, load

__all__ = ["PackedModel", "PackedNetwork", "load"]
