"""The first layer of a trained network, kept for figures: a histogram and its features."""

import json
import math

import numpy as np
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import nn

from bclightning.runs.folder import RunFolder
from bclightning.storage import replacing, write_text
from bclightning.training.weight_statistics import feature_grid

BINS = 100


def write_portrait(folder: RunFolder, network: nn.Module, datamodule: LightningDataModule) -> None:
    """Write the first layer's histogram (figure 2) and, where it sees images, its features (1).

    Args:
        folder: The run's folder; nothing is written for a network without a weight layer.
        network: The network, with the weights of its best epoch.
        datamodule: Knows the shape of its images, if it has any.
    """
    layers = ((name, m) for name, m in network.named_modules() if hasattr(m, "weight"))
    named = [(name, m) for name, m in layers if isinstance(m, nn.Linear | nn.Conv2d)]
    if not named:
        return
    name, layer = named[0]
    weight = layer.weight.detach().float().cpu()
    counts, edges = np.histogram(weight.numpy(), bins=BINS)
    content = {
        "layer": name.removeprefix("network."),
        "weights": weight.numel(),
        "at_bounds": float((weight.abs() >= 1).float().mean()),
        "edges": [float(f"{edge:.6g}") for edge in edges],
        "counts": counts.tolist(),
    }
    write_text(folder.first_layer, json.dumps(content) + "\n")
    image_shape = getattr(datamodule, "image_shape", None)
    of_images = image_shape is not None and math.prod(image_shape) == weight.shape[1]
    if weight.dim() == 4 or of_images:
        with replacing(folder.features) as file:
            Image.fromarray(feature_grid(weight, image_shape or ())).save(file, "PNG")
