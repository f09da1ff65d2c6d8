"""What a network computes, as a list of plain steps that a file can hold and anyone can run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.parametrize import is_parametrized

from bclightning.errors import UserError
from bclightning.nn import BinaryLayer

PRODUCTS = ("linear", "conv2d")
"""Steps that multiply by weights."""

# The settings that each kind of step has, all of them whole numbers or pairs of them.
_SETTINGS: dict[str, tuple[str, ...]] = {
    "flatten": (),
    "relu": (),
    "max_pool2d": ("kernel_size", "stride", "padding"),
    "affine": ("channels",),
    "linear": ("in_features", "out_features"),
    "conv2d": (
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
    ),
}

_PAIRS = ("kernel_size", "stride", "padding", "dilation")

# No layer of any use is larger, and products of sizes stay far from overflow.
_LARGEST = 2**24


@dataclass(frozen=True)
class Step:
    """One step of a network.

    Attributes:
        kind: ``flatten``, ``linear``, ``conv2d``, ``affine`` (a scale and a shift for each channel,
            which is what batch normalization is at test time), ``relu`` or ``max_pool2d``.
        name: Of the module that it comes from; the tensors of the step are called after it.
        settings: As of the torch module.
        binary: Whether a product's weights are ±1.
        bias: Whether a product adds a bias.
    """

    kind: str
    name: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    binary: bool = False
    bias: bool = False

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The shape of a product's weight."""
        s = self.settings
        if self.kind == "linear":
            return s["out_features"], s["in_features"]
        return s["out_channels"], s["in_channels"] // s["groups"], *s["kernel_size"]

    @property
    def channels(self) -> int:
        """The number of outputs of a product, or of an affine step's channels."""
        return self.settings["channels"] if self.kind == "affine" else self.weight_shape[0]

    def tensors(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """The tensors that the step needs, by name: their shapes and dtypes, as in a file."""
        if self.kind == "affine":
            each = ((self.channels,), torch.float32)
            return {f"{self.name}.scale": each, f"{self.name}.shift": each}
        if self.kind not in PRODUCTS:
            return {}
        shape = self.weight_shape
        needed: dict[str, tuple[tuple[int, ...], torch.dtype]]
        needed = {f"{self.name}.weight": (shape, torch.float32)}
        if self.binary:
            packed = (shape[0], -(-math.prod(shape[1:]) // 8))
            needed = {f"{self.name}.bits": (packed, torch.uint8)}
        if self.bias:
            needed[f"{self.name}.bias"] = ((shape[0],), torch.float32)
        return needed

    def as_json(self) -> dict[str, Any]:
        """The step as plain data."""
        content: dict[str, Any] = {"kind": self.kind, **self.settings}
        if self.name:
            content["name"] = self.name
        if self.kind in PRODUCTS:
            content |= {"binary": self.binary, "bias": self.bias}
        return content

    @classmethod
    def parse(cls, content: Any) -> "Step":
        """Make a step of plain data.

        Raises:
            ValueError: It is not what `as_json` makes.
        """
        if not isinstance(content, dict) or content.get("kind") not in _SETTINGS:
            raise ValueError("a step of an unknown kind")
        rest = dict(content)
        kind, name = rest.pop("kind"), rest.pop("name", "")
        binary, bias = rest.pop("binary", False), rest.pop("bias", False)
        if not isinstance(name, str) or not all(isinstance(flag, bool) for flag in (binary, bias)):
            raise ValueError(f"a {kind} step with a name or a flag that is none")
        if set(rest) != set(_SETTINGS[kind]):
            raise ValueError(f"a {kind} step with other settings than it has")
        for key, value in rest.items():
            least = 0 if key == "padding" else 1
            for number in value if isinstance(value, list) and len(value) == 2 else [value]:
                if type(number) is not int or not least <= number < _LARGEST:
                    raise ValueError(f"a {kind} step whose {key} is no size")
            if (key in _PAIRS) != isinstance(value, list):
                raise ValueError(f"a {kind} step whose {key} is not as it should be")
        if kind == "conv2d" and (
            rest["in_channels"] % rest["groups"] or rest["out_channels"] % rest["groups"]
        ):
            raise ValueError("a convolution whose groups do not divide its channels")
        if "padding" in rest and not _window_fits(rest):
            raise ValueError(f"a {kind} step that is padded by more than half of its window")
        return cls(kind, name, rest, binary, bias)


def _window_fits(settings: dict[str, Any]) -> bool:
    # What is padded further computes on zeros alone, and its results could grow without end.
    dilations = settings.get("dilation", [1, 1])
    sides = zip(settings["kernel_size"], dilations, settings["padding"], strict=True)
    return all(2 * padding <= dilation * (kernel - 1) + 1 for kernel, dilation, padding in sides)


class _Tracer(fx.Tracer):
    """Follows a network down to the modules that steps are made of."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, BinaryLayer) or super().is_leaf_module(m, module_qualified_name)


def trace(network: nn.Module) -> list[tuple[Step, nn.Module | None]]:
    """The steps of a network, each with the module that it comes from.

    Dropout and identities, which do nothing at test time, are left out.

    Args:
        network: A chain of `Linear`, `Conv2d`, batch normalizations, ReLU, max pooling, flattening
            and dropout, however nested.

    Raises:
        UserError: It is something else; the message names what stands in the way.

    Example:
        >>> from bclightning.models import MLP
        >>> [step.kind for step, _ in trace(MLP(64, [8], regularizer="stochastic"))]
        ['flatten', 'linear', 'affine', 'relu', 'linear', 'affine']
    """
    try:
        graph = _Tracer().trace(network)
    except Exception as error:  # whatever a network's code does to a traced tensor
        raise UserError(f"{_cannot(network)}: tracing it fails ({error})") from error
    steps: list[tuple[Step, nn.Module | None]] = []
    last: fx.Node | None = None
    for node in graph.nodes:
        inputs = [argument for argument in node.args if isinstance(argument, fx.Node)]
        if node.op != "placeholder" and inputs != [last]:
            raise UserError(f"{_cannot(network)}: {node} does not follow {last} alone")
        if node.op == "placeholder" and last is not None:
            raise UserError(f"{_cannot(network)}: it takes more than one input")
        if node.op == "call_module":
            module = network.get_submodule(str(node.target))
            if module._forward_hooks or module._forward_pre_hooks or is_parametrized(module):
                raise UserError(f"{_cannot(network)}: {node.target} has hooks or parametrizations")
            step = _step_of_module(str(node.target), module)
        else:
            module, step = None, _step_of_call(node)
        if step is None and node.op not in ("placeholder", "output"):
            what = type(module).__name__ if module is not None else node.target
            raise UserError(f"{_cannot(network)}: it has no word for {node} ({what})")
        if step is not None and step.kind != "nothing":
            steps.append((step, module))
        last = node
    return steps


def _cannot(network: nn.Module) -> str:
    return f"{type(network).__name__} is no chain of layers that a packed file can describe"


_NOTHING = Step("nothing")


def _step_of_module(name: str, module: nn.Module) -> Step | None:
    settings: dict[str, Any]
    match module:
        case nn.Linear():
            settings = {"in_features": module.in_features, "out_features": module.out_features}
        case nn.Conv2d() if module.padding_mode == "zeros" and not isinstance(module.padding, str):
            settings = {
                "in_channels": module.in_channels,
                "out_channels": module.out_channels,
                "kernel_size": list(module.kernel_size),
                "stride": list(module.stride),
                "padding": list(module.padding),
                "dilation": list(module.dilation),
                "groups": module.groups,
            }
        case nn.BatchNorm1d() | nn.BatchNorm2d() if module.track_running_stats:
            return Step("affine", name, {"channels": module.num_features})
        case nn.ReLU():
            return Step("relu")
        case nn.MaxPool2d() if not module.ceil_mode and _pair(module.dilation) == [1, 1]:
            pairs = (module.kernel_size, module.stride, module.padding)
            keys = ("kernel_size", "stride", "padding")
            return Step("max_pool2d", "", dict(zip(keys, map(_pair, pairs), strict=True)))
        case nn.Flatten() if (module.start_dim, module.end_dim) == (1, -1):
            return Step("flatten")
        case nn.Dropout() | nn.Dropout1d() | nn.Dropout2d() | nn.Identity():
            return _NOTHING
        case _:
            return None
    kind = "linear" if isinstance(module, nn.Linear) else "conv2d"
    return Step(kind, name, settings, isinstance(module, BinaryLayer), module.bias is not None)


def _step_of_call(node: fx.Node) -> Step | None:
    rest = [argument for argument in node.args if not isinstance(argument, fx.Node)]
    if node.target in ("flatten", torch.flatten) and (rest or node.kwargs.get("start_dim")) in (
        [1],
        [1, -1],
        1,
    ):
        return Step("flatten")
    if node.target == "contiguous":
        return _NOTHING
    if node.target in ("relu", torch.relu, functional.relu):
        return Step("relu")
    return None


def _pair(value: Any) -> list[int]:
    return list(value) if isinstance(value, tuple | list) else [int(value)] * 2


def folded(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Batch normalization at test time, as one scale and one shift for each channel.

    ``y = gamma * (x - mean) / sqrt(var + eps) + beta``, computed in double precision, on the CPU
    wherever the network is.

    Example:
        >>> folded(nn.BatchNorm1d(1, eps=0.0))
        (tensor([1.]), tensor([0.]))
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch normalization without running statistics cannot be folded")
    scale = (_exact(norm.running_var) + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * _exact(norm.weight)
    shift = -_exact(norm.running_mean) * scale
    if norm.bias is not None:
        shift = shift + _exact(norm.bias)
    return scale.float(), shift.float()


def _exact(tensor: Tensor) -> Tensor:
    # First to the CPU: not every device has double precision.
    return tensor.detach().cpu().double()


def shapes(steps: Sequence[Step], image: Sequence[int]) -> list[tuple[int, ...]]:
    """The shape of one image's values after each step.

    Args:
        steps: The steps.
        image: Channels, height and width of an image.

    Raises:
        ValueError: A step does not fit the one before.

    Example:
        >>> shapes([Step("flatten"), Step("relu")], (1, 2, 3))
        [(6,), (6,)]
    """
    found: list[tuple[int, ...]] = []
    shape = tuple(image)
    for step in steps:
        shape = _after(step, shape)
        if not shape or min(shape) < 1 or math.prod(shape) >= _LARGEST:
            raise ValueError(f"the step {step.name or step.kind} leaves nothing, or too much")
        found.append(shape)
    return found


def _after(step: Step, shape: tuple[int, ...]) -> tuple[int, ...]:
    s = step.settings
    match step.kind:
        case "flatten":
            return (math.prod(shape),)
        case "relu":
            return shape
        case "affine" if shape[0] == s["channels"]:
            return shape
        case "linear" if shape == (s["in_features"],):
            return (s["out_features"],)
        case "max_pool2d" if len(shape) == 3:
            return (shape[0], *_sides(s, shape))
        case "conv2d" if len(shape) == 3 and shape[0] == s["in_channels"]:
            return (s["out_channels"], *_sides(s, shape))
    raise ValueError(f"the step {step.name or step.kind} does not fit what comes before it")


def _sides(settings: dict[str, Any], shape: tuple[int, ...]) -> list[int]:
    windows = zip(
        shape[1:],
        settings["padding"],
        settings.get("dilation", [1, 1]),
        settings["kernel_size"],
        settings["stride"],
        strict=True,
    )
    return [
        (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for side, padding, dilation, kernel, stride in windows
    ]
