"""How weights change in training: flip ratio, saturation, histograms, first-layer features."""

import math
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from bclightning.nn import BinaryLayer, binary_layers

BINS = 64
MAX_FEATURES = 100

Counts = npt.NDArray[np.int64]
Edges = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]


@runtime_checkable
class MediaLogger(Protocol):
    """A logger that shows histograms and images."""

    def log_histogram(self, key: str, counts: Counts, edges: Edges, step: int) -> None:
        """Show a histogram of `counts` between `edges`."""

    def log_image(self, key: str, image: Image, step: int, caption: str = "") -> None:
        """Show an image of shape (height, width, 3)."""


def saturation(layer: BinaryLayer) -> float:
    """The fraction of latent weights at a bound, ±1 (figure 2 of the paper).

    Example:
        >>> from bclightning.nn import BinaryLinear
        >>> layer = BinaryLinear(2, 1)
        >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, 0.3]]))
        >>> saturation(layer)
        0.5
    """
    return float((layer.weight.detach().abs() >= 1).float().mean())


def first_weight_layer(module: nn.Module) -> tuple[str, nn.Linear | nn.Conv2d] | None:
    """The name and the layer of the first product of a network; `None` if it has none.

    Example:
        >>> first_weight_layer(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
        ('1', Linear(in_features=4, out_features=2, bias=True))
    """
    return next(iter(_weight_layers(module).items()), None)


def weight_layer_names(module: nn.Module) -> list[str]:
    """The names of all layers with weights, in the network's order.

    Example:
        >>> weight_layer_names(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)))
        ['0', '2']
    """
    return list(_weight_layers(module))


def weight_histogram(weight: Tensor, bins: int) -> tuple[Counts, Edges]:
    """A histogram of weights, in bins of equal width from the smallest weight to the largest.

    Args:
        weight: Weights of any shape.
        bins: Number of bins.

    Returns:
        The number of weights in each bin, and the ``bins + 1`` edges of the bins.

    Example:
        >>> counts, edges = weight_histogram(torch.tensor([-1.0, -0.5, 1.0]), bins=2)
        >>> counts.tolist(), edges.tolist()
        ([2, 1], [-1.0, 0.0, 1.0])
    """
    counts, edges = np.histogram(_on_cpu(weight).numpy(), bins=bins)
    return counts, edges.astype(np.float64)


def first_layer_image(weight: Tensor, image_shape: tuple[int, ...] | None) -> Image | None:
    """The features of the first layer as an image; `None` if the layer does not see images.

    Args:
        weight: Weight of the first layer, as for `feature_grid`.
        image_shape: Shape (channels, height, width) of the network's images, if known.

    Example:
        >>> first_layer_image(torch.zeros(4, 6), (1, 2, 3)).shape
        (7, 9, 3)
        >>> first_layer_image(torch.zeros(4, 6), None) is None
        True
    """
    if weight.dim() == 4:
        return feature_grid(weight, tuple(weight.shape[1:]))
    if image_shape is None or len(image_shape) != 3:
        return None
    if math.prod(image_shape) == weight.shape[1]:
        return feature_grid(weight, image_shape)
    return None


def feature_grid(weight: Tensor, image_shape: tuple[int, ...]) -> Image:
    """The first layer's weights as small images side by side (figure 1 of the paper).

    Args:
        weight: Weight of shape (out_features, pixels) or (out_channels, in_channels, height,
            width). The first 100 outputs are shown, each from its smallest weight (black) to its
            largest (white).
        image_shape: Shape (channels, height, width) of the network's images; unused for a
            convolution.

    Returns:
        An image of shape (height, width, 3).

    Example:
        >>> feature_grid(torch.zeros(4, 6), (1, 2, 3)).shape
        (7, 9, 3)
    """
    shape = image_shape if weight.dim() == 2 else tuple(weight.shape[1:])
    tiles = _on_cpu(weight)[:MAX_FEATURES].reshape(-1, *shape)
    low, high = tiles.amin((1, 2, 3), True), tiles.amax((1, 2, 3), True)
    # A feature whose weights are all equal, as binary ones can be, is grey.
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
    image: Image = (grid * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return image


class WeightStatistics(Callback):
    """Log once per epoch how the weights change.

    For each binary layer, these are ``flip_ratio/<layer>``, the fraction of binary weights whose
    sign changed over the epoch, and ``saturation/<layer>``, the fraction of latent weights at ±1.
    An epoch that was resumed in its middle has no ``flip_ratio``. Loggers that show media also get,
    every few epochs and after the last one, a histogram of each layer's weights
    (``weights/<layer>``) and an image of the first layer's features.

    Args:
        media_every: Number of epochs from one set of histograms and images to the next.

    Raises:
        ValueError: The number is less than 1.

    Example:
        >>> trainer = Trainer(callbacks=[WeightStatistics()], accelerator="cpu", logger=False)
        >>> any(isinstance(callback, WeightStatistics) for callback in trainer.callbacks)
        True
    """

    def __init__(self, media_every: int = 10) -> None:
        if media_every < 1:
            raise ValueError(f"media_every must be at least 1, got {media_every}")
        self.media_every = media_every
        self._signs: dict[str, Tensor] = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the signs at the start of the epoch."""
        self._signs = {
            _short(name): layer.weight.detach() >= 0
            for name, layer in binary_layers(pl_module).items()
        }

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what has changed over the epoch."""
        for name, layer in binary_layers(pl_module).items():
            key = _short(name)
            values: dict[str, Tensor | float] = {f"saturation/{key}": saturation(layer)}
            # A checkpoint from within an epoch is resumed without the epoch's start.
            if key in self._signs:
                flipped = (layer.weight.detach() >= 0) != self._signs[key]
                values[f"flip_ratio/{key}"] = flipped.float().mean()
            # All processes have the same weights, but Lightning asks how to combine them.
            pl_module.log_dict(dict(values), sync_dist=trainer.world_size > 1)
        epochs = trainer.current_epoch + 1
        if epochs % self.media_every == 0 or epochs == trainer.max_epochs:
            self._show(trainer, pl_module)

    def _show(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loggers = [logger for logger in trainer.loggers if isinstance(logger, MediaLogger)]
        if not loggers:
            return
        epoch = trainer.current_epoch
        for name, layer in _weight_layers(pl_module).items():
            counts, edges = weight_histogram(layer.weight, BINS)
            for logger in loggers:
                logger.log_histogram(f"weights/{name}", counts, edges, epoch)
        first = first_weight_layer(pl_module)
        if first is None:
            return
        image_shape = getattr(getattr(trainer, "datamodule", None), "image_shape", None)
        image = first_layer_image(first[1].weight, image_shape)
        if image is not None:
            for logger in loggers:
                logger.log_image("features/first_layer", image, epoch, f"epoch {epoch + 1}")


def _weight_layers(module: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    return {
        _short(name): layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }


def _short(name: str) -> str:
    # In a Classifier, the name of every layer starts with "network.".
    return name.removeprefix("network.")


def _on_cpu(weight: Tensor) -> Tensor:
    return weight.detach().float().cpu()
