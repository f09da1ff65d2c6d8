"""The steps of a packed model as torch modules."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bclightning.functional.bit_product import bit_linear, by_groups
from bclightning.functional.packing import unpack_signs
from bclightning.inference.graph import PRODUCTS, Step

Storage = Literal["bits", "float32", "bfloat16", "int8"]
"""How binary weights of linear layers are kept in memory: in 1, 32, 16 or 8 bits each."""

# The int8 product reads weights in blocks, so that their sizes are padded to multiples of this.
_BLOCK = 32

# A product on the bits takes one vector after the other. For more vectors of each image than this,
# as a layer has that is applied to each place of a sequence, the ordinary product is faster.
MAX_VECTORS_ON_BITS = 8


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
        """Multiply inputs of shape (..., features)."""
        if inputs.dim() != 2 and self.storage in ("bits", "int8"):
            # Their products know matrices alone.
            rows = self(inputs.reshape(-1, self.in_features))
            return rows.view(*inputs.shape[:-1], self.out_features)
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


class Constant(nn.Module):
    """A tensor that needs no input.

    Example:
        >>> Constant(torch.tensor(2.0))()
        tensor(2.)
    """

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value)

    def forward(self) -> Tensor:
        """The tensor."""
        return self.value


class LayerNorm(nn.Module):
    """A normalization over the last axes, with a scale and a shift for each of their elements.

    Args:
        shape: Sizes of these axes.
        eps: Number that is added to the variance.
        scale: Factors of that shape, or ``None``.
        shift: Summands of that shape, or ``None``.

    Example:
        >>> LayerNorm([2], 0.0)(torch.tensor([[1.0, 3.0]]))
        tensor([[-1.,  1.]])
    """

    scale: Tensor | None
    shift: Tensor | None

    def __init__(
        self,
        shape: list[int],
        eps: float,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.eps = eps
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalize inputs of shape (..., *shape)."""
        return functional.layer_norm(inputs, self.shape, self.scale, self.shift, self.eps)


class Function(nn.Module):
    """A step that has no tensors.

    Args:
        kind: A key of `FUNCTIONS`.
        settings: The step's settings.

    Example:
        >>> Function("add", {})(torch.tensor(1.0), torch.tensor(2.0))
        tensor(3.)
    """

    def __init__(self, kind: str, settings: dict[str, Any]) -> None:
        super().__init__()
        self.kind = kind
        self.settings = settings

    def forward(self, *inputs: Tensor) -> Tensor:
        """Compute the step."""
        return FUNCTIONS[self.kind](self.settings, *inputs)

    def extra_repr(self) -> str:
        """Kind and settings."""
        return ", ".join([self.kind, *(f"{key}={value}" for key, value in self.settings.items())])


def _slice(s: dict[str, Any], x: Tensor) -> Tensor:
    place = (slice(None),) * s["axis"] + (slice(s["start"], s["stop"], s["step"]),)
    return x[place]


def _pad(s: dict[str, Any], x: Tensor) -> Tensor:
    # Torch counts axes from the last.
    return functional.pad(x, [number for pair in reversed(s["pads"]) for number in pair])


def _avg_pool(s: dict[str, Any], x: Tensor) -> Tensor:
    pool = functional.avg_pool1d if len(s["kernel_size"]) == 1 else functional.avg_pool2d
    return pool(
        x,
        s["kernel_size"],
        s["stride"],
        s["padding"],
        count_include_pad=s["count_include_pad"],
    )


def _expand_batch(_: dict[str, Any], x: Tensor, like: Tensor) -> Tensor:
    return x.expand(len(like), *x.shape[1:])


FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "max_pool1d": lambda s, x: functional.max_pool1d(x, **s),
    "max_pool2d": lambda s, x: functional.max_pool2d(x, **s),
    "avg_pool1d": _avg_pool,
    "avg_pool2d": _avg_pool,
    "mean": lambda s, x: x.mean(s["axes"], s["keepdim"]),
    "max": lambda s, x: x.amax(s["axes"], s["keepdim"]),
    "add": lambda s, a, b: a + b,
    "subtract": lambda s, a, b: a - b,
    "multiply": lambda s, a, b: a * b,
    "divide": lambda s, a, b: a / b,
    "clamp": lambda s, x: torch.clamp(x, s["low"], s["high"]),
    "leaky_relu": lambda s, x: functional.leaky_relu(x, s["negative_slope"]),
    "elu": lambda s, x: functional.elu(x, s["alpha"]),
    "gelu": lambda s, x: functional.gelu(x, approximate=s["approximate"]),
    "silu": lambda s, x: functional.silu(x),
    "sigmoid": lambda s, x: torch.sigmoid(x),
    "tanh": lambda s, x: torch.tanh(x),
    "hardswish": lambda s, x: functional.hardswish(x),
    "hardsigmoid": lambda s, x: functional.hardsigmoid(x),
    "sqrt": lambda s, x: torch.sqrt(x),
    "exp": lambda s, x: torch.exp(x),
    "abs": lambda s, x: torch.abs(x),
    "sign": lambda s, x: torch.sign(x),
    "softmax": lambda s, x: torch.softmax(x, s["axis"]),
    "matmul": lambda s, a, b: a @ b,
    "attention": lambda s, q, k, v: functional.scaled_dot_product_attention(
        q, k, v, scale=s["scale"]
    ),
    "reshape": lambda s, x: x.reshape(s["shape"]),
    "permute": lambda s, x: x.permute(s["axes"]),
    "expand": lambda s, x: x.expand(s["shape"]),
    "expand_batch": _expand_batch,
    "slice": _slice,
    "concat": lambda s, *inputs: torch.cat(inputs, s["axis"]),
    "pad": _pad,
}
"""What steps without tensors compute, from their settings and their inputs."""


def module_of(
    step: Step, tensors: Mapping[str, Tensor], storage: Storage, vectors: int = 1
) -> nn.Module:
    """The module that computes a step.

    Args:
        step: The step.
        tensors: The tensors of the model, by name.
        storage: How the weights of binary linear layers are kept.
        vectors: Vectors of one image that a linear layer takes.
    """
    s = step.settings
    if step.kind in FUNCTIONS:
        return Function(step.kind, s)
    own = {end: tensors[f"{step.name}.{end}"] for end in step.shapes()}
    match step.kind:
        # Torch's own modules, which save a microsecond each, for what is in every small network.
        case "flatten":
            return nn.Flatten()
        case "relu":
            return nn.ReLU()
        case "affine":
            return Affine(own["scale"], own["shift"])
        case "layer_norm":
            return LayerNorm(s["shape"], s["eps"], own.get("scale"), own.get("shift"))
        case "parameter":
            return Constant(own["value"])
        case "scalar":
            return Constant(torch.tensor(float(s["value"])))
        case "linear" if step.binary:
            if storage == "bits" and vectors > MAX_VECTORS_ON_BITS:
                storage = "float32"
            return SignLinear(own["bits"], s["in_features"], own.get("bias"), storage)
    with torch.device("meta"):
        layer = _real_layer(step)
    weight = own["weight"] if not step.binary else unpack_signs(own["bits"], step.weight_shape)
    layer.load_state_dict(
        {"weight": weight, **({"bias": own["bias"]} if step.bias else {})}, assign=True
    )
    return layer.requires_grad_(False)


def _real_layer(step: Step) -> nn.Module:
    if step.kind == "linear":
        return nn.Linear(**step.settings, bias=step.bias)
    layers = dict(zip(PRODUCTS[1:], (nn.Conv1d, nn.Conv2d, nn.Conv3d), strict=True))
    return layers[step.kind](**step.settings, bias=step.bias)
