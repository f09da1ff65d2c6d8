"""Binary layers, and functions on the binary layers of a model."""

from bclightning.nn.batch_norm import preserving_batch_norm, reestimate_batch_norm_
from bclightning.nn.convert import convert_to_binary
from bclightning.nn.latent import (
    binary_layers,
    clip_latent_weights_,
    evaluates_other_weights,
    evaluating_with,
    in_evaluation_mode,
)
from bclightning.nn.layers import BinaryConv2d, BinaryLayer, BinaryLinear
from bclightning.nn.loading import watch_float_layers
from bclightning.vocabulary import Binarization, LayerWeights

watch_float_layers()

__all__ = [
    "Binarization",
    "BinaryConv2d",
    "BinaryLayer",
    "BinaryLinear",
    "LayerWeights",
    "binary_layers",
    "clip_latent_weights_",
    "convert_to_binary",
    "evaluates_other_weights",
    "evaluating_with",
    "in_evaluation_mode",
    "preserving_batch_norm",
    "reestimate_batch_norm_",
]
