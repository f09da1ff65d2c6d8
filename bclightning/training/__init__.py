"""Training with Lightning: the module, the callbacks, the optimizers and the checkpoints."""

from bclightning.training.callbacks import BinaryConnect, ClipWeights
from bclightning.training.classifier import Classifier
from bclightning.training.first_epochs import FirstEpochs
from bclightning.training.optim import make_optimizer, parameter_groups
from bclightning.training.statistics import WeightStatistics
from bclightning.training.validation import ReestimateBatchNorm

__all__ = [
    "BinaryConnect",
    "Classifier",
    "ClipWeights",
    "FirstEpochs",
    "ReestimateBatchNorm",
    "WeightStatistics",
    "make_optimizer",
    "parameter_groups",
]
