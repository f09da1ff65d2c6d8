"""The paper's networks, as plain torch modules."""

from bclightning.models.blocks import Regularizer
from bclightning.models.convnet import ConvNet
from bclightning.models.mlp import MLP

__all__ = ["MLP", "ConvNet", "Regularizer"]
