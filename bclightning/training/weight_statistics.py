"""How latent weights move: flip ratio, saturation, histograms, and the first layer's features."""

import math
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from bclightning.nn import BinaryLayer, binary_layers

BINS = 64
FEATURES = 100


@runtime_checkable
class MediaLogger(Protocol):
    """A logger that shows histograms and images."""

    def log_histogram(
        self, key: str, counts: npt.NDArray[np.int64], edges: npt.NDArray[np.float64], step: int
    ) -> None:
        """Show a histogram of `counts` between `edges`."""

    def log_image(
        self, key: str, image: npt.NDArray[np.uint8], step: int, caption: str = ""
    ) -> None:
        """Show an image of shape (height, width, 3)."""


def saturation(layer: BinaryLayer) -> float:
    """The share of latent weights that lie at a bound, ±1 (figure 2 of the paper).

    Example:
        >>> from bclightning.nn import BinaryLinear
        >>> layer = BinaryLinear(2, 1)
        >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, 0.3]]))
        >>> saturation(layer)
        0.5
    """
    return float((layer.weight.detach().abs() >= 1).float().mean())


def feature_grid(weight: Tensor, image_shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The first layer's weights as small images side by side (figure 1 of the paper).

    Args:
        weight: Of shape (out_features, pixels) or (out_channels, in_channels, height, width); the
            first 100 outputs are shown, each from its least (black) to its greatest (white) weight.
        image_shape: Shape (channels, height, width) of the network's images.

    Returns:
        An image of shape (height, width, 3).

    Example:
        >>> feature_grid(torch.zeros(4, 6), (1, 2, 3)).shape
        (7, 9, 3)
    """
    shape = image_shape if weight.dim() == 2 else tuple(weight.shape[1:])
    tiles = weight.detach().float().cpu()[:FEATURES].reshape(-1, *shape)
    low, high = tiles.amin((1, 2, 3), True), tiles.amax((1, 2, 3), True)
    # A feature of one value only, as a binary one can be, is grey.
    tiles = torch.where(high > low, (tiles - low) / (high - low).clamp_min(1e-12), 0.5)
    if tiles.shape[1] != 3:
        tiles = tiles.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    count, _, height, width = tiles.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    grid = torch.full((3, rows * (height + 1) + 1, columns * (width + 1) + 1), 0.5)
    for index, tile in enumerate(tiles):
        top, left = index // columns * (height + 1) + 1, index % columns * (width + 1) + 1
        grid[:, top : top + height, left : left + width] = tile
    image: npt.NDArray[np.uint8] = (grid * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return image


class WeightStatistics(Callback):
    """Log how the weights move, once an epoch.

    For each binary layer ``flip_ratio/<layer>``, the share of binary weights that changed their
    sign over the epoch, and ``saturation/<layer>``, the share of latent weights at ±1. To loggers
    that show media, every few epochs and after the last one: a histogram of each layer's weights
    (``weights/<layer>``) and an image of the first layer's features.

    Args:
        media_every: Epochs between histograms and images.

    Example:
        >>> trainer = Trainer(callbacks=[WeightStatistics()], accelerator="cpu", logger=False)
    """

    def __init__(self, media_every: int = 10) -> None:
        if media_every < 1:
            raise ValueError(f"media_every counts epochs from 1, and {media_every} is less")
        self.media_every = media_every
        self._signs: dict[str, Tensor] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the signs that the epoch starts from."""
        self._signs = {
            _short(name): layer.weight.detach() >= 0
            for name, layer in binary_layers(pl_module).items()
        }

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what changed over the epoch."""
        for name, layer in binary_layers(pl_module).items():
            key = _short(name)
            flipped = (layer.weight.detach() >= 0) != self._signs[key]
            values: dict[str, Tensor | float] = {
                f"flip_ratio/{key}": flipped.float().mean(),
                f"saturation/{key}": saturation(layer),
            }
            # All processes hold the same weights; Lightning wants it said how to join them.
            pl_module.log_dict(dict(values), sync_dist=trainer.world_size > 1)
        epochs = trainer.current_epoch + 1
        if epochs % self.media_every == 0 or epochs == trainer.max_epochs:
            self._show(trainer, pl_module)

    def _show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loggers = [logger for logger in trainer.loggers if isinstance(logger, MediaLogger)]
        layers = {
            _short(name): module
            for name, module in pl_module.named_modules()
            if isinstance(module, (nn.Linear, nn.Conv2d))
        }
        if not loggers or not layers:
            return
        epoch = trainer.current_epoch
        for name, layer in layers.items():
            counts, edges = np.histogram(layer.weight.detach().float().cpu().numpy(), bins=BINS)
            for logger in loggers:
                logger.log_histogram(f"weights/{name}", counts, edges, epoch)
        first = next(iter(layers.values()))
        image_shape = getattr(getattr(trainer, "datamodule", None), "image_shape", None)
        if first.weight.dim() == 4 or (
            image_shape is not None and math.prod(image_shape) == first.weight.shape[1]
        ):
            image = feature_grid(first.weight, image_shape or ())
            for logger in loggers:
                logger.log_image("features/first_layer", image, epoch, f"epoch {epoch + 1}")


def _short(name: str) -> str:
    # Inside Classifier every layer's name starts with "network."
    return name.removeprefix("network.")
