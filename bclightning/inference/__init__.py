"""Test time: with which weights, with what errors, and as a file of one bit a weight."""

from bclightning.evaluation import (
    BatchNorm,
    EvalWeights,
    MethodError,
    chosen_method,
    ensemble_errors,
    error_rate,
    errors_by_method,
)
from bclightning.inference.packed import PackedModel
from bclightning.inference.runtime import PackedNetwork, load

__all__ = [
    "BatchNorm",
    "EvalWeights",
    "MethodError",
    "PackedModel",
    "PackedNetwork",
    "chosen_method",
    "ensemble_errors",
    "error_rate",
    "errors_by_method",
    "load",
]
