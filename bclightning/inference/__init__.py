"""Test time: which weights a trained network is used with, and what errors they give."""

from bclightning.inference.methods import (
    BatchNorm,
    EvalWeights,
    MethodError,
    chosen_method,
    error_rate,
    errors_by_method,
)

__all__ = [
    "BatchNorm",
    "EvalWeights",
    "MethodError",
    "chosen_method",
    "error_rate",
    "errors_by_method",
]
