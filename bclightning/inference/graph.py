"""What a network computes, as a list of plain steps that a file can hold and anyone can run."""

import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

PRODUCTS = ("linear", "conv2d")
"""Steps that multiply by weights."""

# The settings that each kind of step has, all of them integers or pairs of them.
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

SIZE_BITS = 24
"""No size in a useful network reaches this power of two, and products stay far from overflow."""

_SIZE_LIMIT = 2**SIZE_BITS


@dataclass(frozen=True)
class Step:
    """One step of a network.

    Attributes:
        kind: ``flatten``, ``linear``, ``conv2d``, ``affine`` (a scale and a shift for each channel,
            which is what batch normalization is at test time), ``relu`` or ``max_pool2d``.
        name: Name of the module that the step comes from, and the prefix of its tensors' names.
        settings: Sizes and pairs of sizes, named as the arguments of the torch module.
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
        """Make a step from plain data.

        Raises:
            ValueError: The data is not what `as_json` returns; the message names the setting.

        Example:
            >>> Step.parse({"kind": "linear", "name": "last", "in_features": -3, "out_features": 2})
            Traceback (most recent call last):
            ValueError: linear 'last': in_features must be an integer in [1, 2**24), got -3
        """
        if not isinstance(content, dict):
            raise ValueError(f"a step must be a JSON object, got {reprlib.repr(content)}")
        rest = dict(content)
        kind, name = rest.pop("kind", None), rest.pop("name", "")
        binary, bias = rest.pop("binary", False), rest.pop("bias", False)
        if not isinstance(kind, str) or kind not in _SETTINGS:
            raise ValueError(f"unsupported operation: {reprlib.repr(kind)}")
        if not isinstance(name, str):
            raise ValueError(f"{kind}: name must be a string, got {reprlib.repr(name)}")
        try:
            _check_flags(binary=binary, bias=bias)
            _check_settings(kind, rest)
        except ValueError as error:
            raise ValueError(f"{label(kind, name)}: {error}") from error
        return cls(kind, name, rest, binary, bias)


def label(kind: str, name: str) -> str:
    """What a step is called in an error.

    Example:
        >>> label("conv2d", "first")
        "conv2d 'first'"
    """
    return f"{kind} {reprlib.repr(name)}" if name else kind


def _check_flags(**flags: Any) -> None:
    for key, value in flags.items():
        if not isinstance(value, bool):
            raise ValueError(f"{key} must be true or false, got {reprlib.repr(value)}")


def _check_settings(kind: str, settings: dict[str, Any]) -> None:
    expected = _SETTINGS[kind]
    if set(settings) != set(expected):
        raise ValueError(
            f"expected the settings {list(expected)}, got {reprlib.repr(list(settings))}"
        )
    for key, value in settings.items():
        _check_size(key, value)
    for key in ("in_channels", "out_channels") if kind == "conv2d" else ():
        if settings[key] % settings["groups"]:
            raise ValueError(
                f"{key} must be divisible by groups, got {settings[key]} and {settings['groups']}"
            )
    # What is padded further computes on zeros alone, and its results could grow without end.
    if "padding" in settings and not _window_fits(settings):
        raise ValueError(
            "padding must be at most half of the effective kernel size, "
            f"got padding {settings['padding']} and kernel_size {settings['kernel_size']}"
        )


def _check_size(key: str, value: Any) -> None:
    pair = key in _PAIRS
    least = 0 if key == "padding" else 1
    numbers = value if pair and isinstance(value, list) and len(value) == 2 else [value]
    if len(numbers) != 1 + pair or not all(
        type(number) is int and least <= number < _SIZE_LIMIT for number in numbers
    ):
        what = "a pair of integers" if pair else "an integer"
        raise ValueError(
            f"{key} must be {what} in [{least}, 2**{SIZE_BITS}), got {reprlib.repr(value)}"
        )


def _window_fits(settings: dict[str, Any]) -> bool:
    dilations = settings.get("dilation", [1, 1])
    sides = zip(settings["kernel_size"], dilations, settings["padding"], strict=True)
    return all(2 * padding <= dilation * (kernel - 1) + 1 for kernel, dilation, padding in sides)


def shapes(steps: Sequence[Step], image: Sequence[int]) -> list[tuple[int, ...]]:
    """The shape of one image's values after each step.

    Args:
        steps: The steps.
        image: Channels, height and width of an image.

    Raises:
        ValueError: A step cannot take the output of the step before it.

    Example:
        >>> shapes([Step("flatten"), Step("relu")], (1, 2, 3))
        [(6,), (6,)]
    """
    found: list[tuple[int, ...]] = []
    shape = tuple(image)
    for step in steps:
        before, shape = shape, _after(step, shape)
        if not shape or min(shape) < 1 or math.prod(shape) >= _SIZE_LIMIT:
            raise ValueError(
                f"{label(step.kind, step.name)}: the output for an input of shape {before} has "
                f"shape {shape}, which is empty or has 2**{SIZE_BITS} elements or more"
            )
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
    raise ValueError(
        f"{label(step.kind, step.name)}: cannot take an input of shape {shape}; "
        f"its settings are {s}"
    )


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
