"""The first layer of a trained network, kept for figures: a histogram and its features."""

import json

from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import nn

from bclightning.runs.folder import RunFolder
from bclightning.storage import replacing, write_text
from bclightning.training.weight_statistics import (
    first_layer_image,
    first_weight_layer,
    weight_histogram,
)

BINS = 100


def save_first_layer(
    folder: RunFolder, network: nn.Module, datamodule: LightningDataModule
) -> None:
    """Write the first layer's histogram (figure 2) and, where it sees images, its features (1).

    Args:
        folder: Folder of the run; nothing is written for a network without a weight layer.
        network: The network, with the weights of its best epoch.
        datamodule: Data module, which knows the shape of its images if it has any.
    """
    found = first_weight_layer(network)
    if found is None:
        return
    name, layer = found
    weight = layer.weight.detach().float().cpu()
    counts, edges = weight_histogram(weight, BINS)
    content = {
        "layer": name.removeprefix("network."),
        "weights": weight.numel(),
        "at_bounds": float((weight.abs() >= 1).float().mean()),
        "edges": [float(f"{edge:.6g}") for edge in edges],
        "counts": counts.tolist(),
    }
    write_text(folder.first_layer, json.dumps(content) + "\n")
    image = first_layer_image(weight, getattr(datamodule, "image_shape", None))
    if image is not None:
        with replacing(folder.features) as file:
            Image.fromarray(image).save(file, "PNG")
