"""A packed model as a torch module, which needs neither Lightning nor the code of training."""

import math
import time
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from bclightning.errors import UserError
from bclightning.inference.graph import values as values_of
from bclightning.inference.images import check_size
from bclightning.inference.limits import last_uses
from bclightning.inference.operations import Storage, module_of
from bclightning.inference.packed import PackedModel
from bclightning.preprocessing import Preprocessing


class PackedNetwork(nn.Module):
    """A network that was read from a packed file.

    Attributes:
        image_shape: Channels, height and width of an image.
        class_names: Names of the classes, one for each output.
        preprocessing: What is done with raw pixels; ``None`` if its file is missing.
        about: The run, the evaluation weights and the errors measured at export.
        storage: How the binary weights of linear layers are kept.

    Example:
        >>> from bclightning.models import MLP
        >>> packed = PackedModel.of(MLP(64, [8]), (1, 8, 8), [str(digit) for digit in range(10)])
        >>> PackedNetwork(packed)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    image_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing | None
    about: dict[str, Any]
    storage: Storage

    def __init__(self, model: PackedModel, storage: Storage = "bits") -> None:
        super().__init__()
        self.image_shape = model.image_shape
        self.class_names = model.class_names
        self.preprocessing = model.preprocessing
        self.about = model.about
        self.storage = storage
        self._convolutional = any(step.kind == "conv2d" for step in model.steps)
        found = values_of(model.steps, model.image_shape)
        # A layer that is used twice is in memory once.
        known: dict[str, nn.Module] = {}
        self.layers = nn.ModuleList()
        self._plan: list[tuple[nn.Module, tuple[int, ...], list[int]]] = []
        self._chain = all(step.inputs is None for step in model.steps)
        done = last_uses(model.steps)
        for number, step in enumerate(model.steps, 1):
            taken = step.taken(number)
            layer = known.get(step.name)
            if layer is None:
                vectors = math.prod(found[number].sizes[:-1])
                layer = module_of(step, model.tensors, storage, vectors)
            if step.name:
                known[step.name] = layer
            self.layers.append(layer)
            self._plan.append((layer, taken, done[number - 1]))
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Map prepared images of shape (batch, channels, height, width) to scores."""
        images = images.float()
        if self._convolutional:
            # Convolutions are faster so, as in training.
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            if self._chain:
                value = images
                for layer in self.layers:
                    value = layer(value)
                return value
            values: list[Tensor | None] = [images]
            for layer, taken, done in self._plan:
                values.append(layer(*[values[number] for number in taken]))
                for number in done:
                    values[number] = None  # its memory is free for what comes
            return cast(Tensor, values[-1])

    def prepare(self, pixels: Tensor) -> Tensor:
        """Prepare raw pixels, as in the data's files, of shape (batch, channels, height, width).

        Raises:
            UserError: The pixels have another shape, or the preprocessing is missing.
        """
        check_size("images", pixels.shape[1:], self.image_shape)
        if self.preprocessing is None:
            raise UserError(
                "the preprocessing of this model was not stored with it, or is in a file of its "
                "own that is missing; put NAME.preprocessing.safetensors beside the model, or "
                "prepare the images yourself"
            )
        return self.preprocessing.apply(pixels)


def load(
    path: Path | str, storage: Storage | Literal["fastest"] = "bits", batch_size: int = 1
) -> PackedNetwork:
    """Load a packed model, as a torch module that maps prepared images to scores.

    Args:
        path: A file that ``bcl export`` wrote.
        storage: How binary weights are kept in memory, or ``fastest``: the storage that a
            measurement on this machine finds fastest for batches of `batch_size`.
        batch_size: Images in a batch, for ``fastest``.

    Raises:
        UserError: The file is missing, damaged or of a later version, or the storage unknown.
    """
    if storage not in (*get_args(Storage), "fastest"):
        raise UserError(
            f"storage must be {', '.join(get_args(Storage))} or fastest, got {storage!r}"
        )
    model = PackedModel.read(path)
    if storage != "fastest":
        return PackedNetwork(model, storage)
    return fastest(model, batch_size)


def fastest(model: PackedModel, batch_size: int, rounds: int = 7) -> PackedNetwork:
    """The network in the storage that is fastest on this machine for batches of a size.

    Args:
        model: The model.
        batch_size: Images in a batch.
        rounds: How often each storage is measured; the median counts.
    """
    images = torch.randn(batch_size, *model.image_shape)
    networks = [PackedNetwork(model, storage) for storage in get_args(Storage)]
    times: list[list[float]] = [[] for _ in networks]
    for turn in range(rounds + 1):
        for network, mine in zip(networks, times, strict=True):
            began = time.perf_counter()
            network(images)
            if turn:  # the first call compiles and fills caches
                mine.append(time.perf_counter() - began)
    medians = [sorted(mine)[len(mine) // 2] for mine in times]
    return networks[medians.index(min(medians))]
