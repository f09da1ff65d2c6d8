"""Training with Lightning, for any LightningModule: the callbacks, the optimizers, a classifier."""

from bclightning.training.batch_norm import ReestimateBatchNorm
from bclightning.training.binary_adam import BinaryAdam
from bclightning.training.callbacks import BinaryConnect, ClipWeights
from bclightning.training.classifier import Classifier
from bclightning.training.optim import make_optimizer, parameter_groups
from bclightning.training.weight_statistics import WeightStatistics

__all__ = [
    "BinaryAdam",
    "BinaryConnect",
    "Classifier",
    "ClipWeights",
    "ReestimateBatchNorm",
    "WeightStatistics",
    "make_optimizer",
    "parameter_groups",
]
