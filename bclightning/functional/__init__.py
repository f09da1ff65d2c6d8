"""Functions of tensors that return tensors; they know no modules and no files."""

from bclightning.functional.binarize import (
    binarize_deterministic,
    binarize_stochastic,
    straight_through,
)
from bclightning.functional.loss import squared_hinge_loss

__all__ = [
    "binarize_deterministic",
    "binarize_stochastic",
    "squared_hinge_loss",
    "straight_through",
]
