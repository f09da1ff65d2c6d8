"""A packed model as a torch module, which needs neither Lightning nor the code of training."""

import time
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from bclightning.errors import UserError
from bclightning.functional.bit_product import bit_linear, by_groups
from bclightning.functional.packing import unpack_signs
from bclightning.inference.graph import Step
from bclightning.inference.images import check_size
from bclightning.inference.packed import PackedModel
from bclightning.preprocessing import Preprocessing

Storage = Literal["bits", "float32", "bfloat16", "int8"]
"""How binary weights of linear layers are kept in memory: in 1, 32, 16 or 8 bits each."""

# The int8 product reads weights in blocks, so that their sizes are padded to multiples of this.
_BLOCK = 32


class Affine(nn.Module):
    """A scale and a shift for each channel.

    Args:
        scale: Factor of each channel, of shape (channels,).
        shift: Summand of each channel, of shape (channels,).

    Example:
        >>> Affine(torch.tensor([2.0]), torch.tensor([1.0]))(torch.tensor([[3.0]]))
        tensor([[7.]])
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scale and shift the channels of (batch, channels, ...)."""
        shape = (-1, *[1] * (inputs.dim() - 2))
        return torch.addcmul(self.shift.view(shape), inputs, self.scale.view(shape))


class SignLinear(nn.Module):
    """A linear layer whose weights are ±1, in one of several storages.

    ``bits`` computes on the packed bits; ``float32`` is the ordinary product; ``bfloat16`` and
    ``int8`` keep the weights in fewer bits and round the inputs to bfloat16.

    Args:
        packed: Result of `pack_signs`, of shape (outputs, ceil(features / 8)).
        in_features: Size of an input vector.
        bias: Bias of shape (outputs,), or ``None``.
        storage: How the weights are kept.

    Example:
        >>> from bclightning.functional.packing import pack_signs
        >>> layer = SignLinear(pack_signs(torch.tensor([[1.0, -1.0]])), 2)
        >>> layer(torch.tensor([[5.0, 3.0]]))
        tensor([[2.]])
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(
        self,
        packed: Tensor,
        in_features: int,
        bias: Tensor | None = None,
        storage: Storage = "bits",
    ) -> None:
        super().__init__()
        self.storage = storage
        self.in_features = in_features
        self.out_features = len(packed)
        match storage:
            case "bits":
                weight = by_groups(packed)
            case "int8":
                # Torch's kernel reads whole blocks, beyond the end of a weight of odd sizes.
                missing = (0, -in_features % _BLOCK, 0, -len(packed) % _BLOCK)
                weight = unpack_signs(packed, (len(packed), in_features), torch.int8)
                weight = functional.pad(weight, missing)
                self.register_buffer("ones", torch.ones(len(weight), dtype=torch.bfloat16))
            case "float32" | "bfloat16":
                dtype = torch.float32 if storage == "float32" else torch.bfloat16
                weight = unpack_signs(packed, (len(packed), in_features), dtype)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply inputs of shape (batch, features)."""
        match self.storage:
            case "bits":
                result = bit_linear(inputs, self.weight)
            case "float32":
                return functional.linear(inputs, self.weight, self.bias)
            case "bfloat16":
                result = functional.linear(inputs.bfloat16(), self.weight).float()
            case "int8":
                padded = functional.pad(inputs.bfloat16(), (0, -self.in_features % _BLOCK))
                ones = self.get_buffer("ones")
                product = _int8_product(padded, self.weight, ones)
                result = product[:, : self.out_features].float()
        return result if self.bias is None else result + self.bias

    def extra_repr(self) -> str:
        """Sizes and storage."""
        return f"{self.in_features}, {self.out_features}, storage={self.storage!r}"


def _int8_product(inputs: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """Multiply bfloat16 inputs (batch, features) by int8 weights (outputs, features)."""
    # Private, as no public function of torch takes floating inputs and int8 weights: converting the
    # weights in each call takes 4 times as long for a single image, and torch.ao's dynamic layers
    # round the inputs to int8 as well.
    return torch._weight_int8pack_mm(inputs, weight, scales)


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
        # A layer that is used twice is in memory once.
        named = {step.name: step for step in model.steps if step.name}
        known = {name: _layer(step, model, storage) for name, step in named.items()}
        self.layers = nn.Sequential(
            *(known.get(step.name) or _layer(step, model, storage) for step in model.steps)
        )
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Map prepared images of shape (batch, channels, height, width) to scores."""
        images = images.float()
        if self._convolutional:
            # Convolutions are faster so, as in training.
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            return self.layers(images)

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


def _layer(step: Step, model: PackedModel, storage: Storage) -> nn.Module:
    s, tensors = step.settings, model.tensors
    bias = tensors.get(f"{step.name}.bias")
    match step.kind:
        case "flatten":
            return nn.Flatten()
        case "relu":
            return nn.ReLU()
        case "max_pool2d":
            return nn.MaxPool2d(tuple(s["kernel_size"]), tuple(s["stride"]), tuple(s["padding"]))
        case "affine":
            return Affine(tensors[f"{step.name}.scale"], tensors[f"{step.name}.shift"])
        case "linear" if step.binary:
            bits = tensors[f"{step.name}.bits"]
            return SignLinear(bits, s["in_features"], bias, storage)
    with torch.device("meta"):
        layer = _real_layer(step)
    weight = tensors.get(f"{step.name}.weight")
    if weight is None:
        weight = unpack_signs(tensors[f"{step.name}.bits"], step.weight_shape)
    layer.load_state_dict({"weight": weight, **({"bias": bias} if step.bias else {})}, assign=True)
    return layer.requires_grad_(False)


def _real_layer(step: Step) -> nn.Module:
    s = step.settings
    if step.kind == "linear":
        return nn.Linear(s["in_features"], s["out_features"], step.bias)
    return nn.Conv2d(
        s["in_channels"],
        s["out_channels"],
        tuple(s["kernel_size"]),
        tuple(s["stride"]),
        tuple(s["padding"]),
        tuple(s["dilation"]),
        s["groups"],
        step.bias,
    )
