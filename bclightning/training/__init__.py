"""Training with Lightning: the module, the callbacks, the optimizers and the checkpoints."""

from bclightning.training.batch_norm import ReestimateBatchNorm
from bclightning.training.callbacks import BinaryConnect, ClipWeights
from bclightning.training.classifier import Classifier
from bclightning.training.optim import make_optimizer, parameter_groups
from bclightning.training.weight_statistics import WeightStatistics

__all__ = [
    "BinaryConnect",
    "Classifier",
    "ClipWeights",
    "ReestimateBatchNorm",
    "WeightStatistics",
    "make_optimizer",
    "parameter_groups",
]
