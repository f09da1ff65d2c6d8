"""The paper's networks, as plain torch modules."""

from bclightning.models.convnet import ConvNet
from bclightning.models.mlp import MLP
from bclightning.vocabulary import Regularizer

__all__ = ["MLP", "ConvNet", "Regularizer"]
