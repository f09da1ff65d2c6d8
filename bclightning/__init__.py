"""bclightning: train, compare and ship networks with binary weights on PyTorch Lightning."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from bclightning.functional import (
        binarize_deterministic,
        binarize_stochastic,
        squared_hinge_loss,
    )
    from bclightning.models import MLP, ConvNet
    from bclightning.nn import (
        BinaryConv2d,
        BinaryLinear,
        clip_latent_weights_,
        convert_to_binary,
        reestimate_batch_norm_,
    )
    from bclightning.training import BinaryConnect, Classifier, ClipWeights

# Loaded when first asked for, so that `bcl --help` does not wait for torch.
_HOMES = {
    "binarize_deterministic": "functional",
    "binarize_stochastic": "functional",
    "squared_hinge_loss": "functional",
    "MLP": "models",
    "ConvNet": "models",
    "BinaryConv2d": "nn",
    "BinaryLinear": "nn",
    "clip_latent_weights_": "nn",
    "convert_to_binary": "nn",
    "reestimate_batch_norm_": "nn",
    "BinaryConnect": "training",
    "Classifier": "training",
    "ClipWeights": "training",
}

__all__ = [
    "MLP",
    "BinaryConnect",
    "BinaryConv2d",
    "BinaryLinear",
    "Classifier",
    "ClipWeights",
    "ConvNet",
    "__version__",
    "binarize_deterministic",
    "binarize_stochastic",
    "clip_latent_weights_",
    "convert_to_binary",
    "reestimate_batch_norm_",
    "squared_hinge_loss",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bclightning' has no attribute {name!r}")
    return getattr(importlib.import_module(f"bclightning.{_HOMES[name]}"), name)
