"""Binary layers, and what is done with the layers of a model."""

from bclightning.nn.batch_norm import preserving_batch_norm, reestimate_batch_norm_
from bclightning.nn.convert import convert_to_binary
from bclightning.nn.latent import (
    binary_layers,
    clip_latent_weights_,
    evaluating_with,
    in_evaluation_mode,
    trains_and_evaluates_differently,
)
from bclightning.nn.layers import (
    Binarization,
    BinaryConv2d,
    BinaryLayer,
    BinaryLinear,
    LayerWeights,
)

__all__ = [
    "Binarization",
    "BinaryConv2d",
    "BinaryLayer",
    "BinaryLinear",
    "LayerWeights",
    "binary_layers",
    "clip_latent_weights_",
    "convert_to_binary",
    "evaluating_with",
    "in_evaluation_mode",
    "preserving_batch_norm",
    "reestimate_batch_norm_",
    "trains_and_evaluates_differently",
]
