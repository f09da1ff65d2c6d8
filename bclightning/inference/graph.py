"""What a network computes, as a list of plain steps that a file can hold and anyone can run.

The values of a network have numbers: 0 is its input, and n is what the n-th step makes. Each step
says which values it takes, all of them made before it; without a word it takes the one before. So
the list is a graph without cycles, in an order in which it can be computed.
"""

import math
import reprlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from bclightning.inference.kinds import KINDS
from bclightning.inference.settings import SIZE_BITS, SIZE_LIMIT, check_settings
from bclightning.inference.values import Value

PRODUCTS = ("linear", "conv1d", "conv2d", "conv3d")
"""Steps that multiply by weights."""


@dataclass(frozen=True)
class Step:
    """One step of a network.

    Attributes:
        kind: A key of `KINDS`: ``linear``, ``conv2d``, ``affine`` (a scale and a shift for each
            channel, which is what batch normalization is at test time), ``relu``, ``add``, ...
        name: Name of the module that the step comes from, and the prefix of its tensors' names.
        settings: Sizes and pairs of sizes, named as the arguments of the torch module.
        binary: Whether a product's weights are ±1.
        bias: Whether a product adds a bias.
        inputs: Numbers of the values that the step takes; ``None`` for the value before it.
    """

    kind: str
    name: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    binary: bool = False
    bias: bool = False
    inputs: tuple[int, ...] | None = None

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The shape of a product's weight."""
        s = self.settings
        if self.kind == "linear":
            return s["out_features"], s["in_features"]
        return s["out_channels"], s["in_channels"] // s["groups"], *s["kernel_size"]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the tensors that the step computes with, by the ends of their names."""
        s = self.settings
        match self.kind:
            case "affine":
                return {"scale": (s["channels"],), "shift": (s["channels"],)}
            case "layer_norm" if s["affine"]:
                return {"scale": tuple(s["shape"]), "shift": tuple(s["shape"])}
            case "parameter":
                return {"value": tuple(s["shape"])}
            case kind if kind in PRODUCTS:
                weight = self.weight_shape
                bias = {"bias": weight[:1]} if self.bias else {}
                return {"bits" if self.binary else "weight": weight} | bias
        return {}

    def tensors(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """The tensors that the step needs, by name: their shapes and dtypes, as in a file."""
        needed = {}
        for end, shape in self.shapes().items():
            dtype = torch.float32
            if end == "bits":
                shape, dtype = (shape[0], -(-math.prod(shape[1:]) // 8)), torch.uint8
            needed[f"{self.name}.{end}"] = (shape, dtype)
        return needed

    def taken(self, number: int) -> tuple[int, ...]:
        """The numbers of the values that it takes, if it is the step of a number from 1.

        Example:
            >>> Step("relu").taken(3), Step("add", inputs=(0, 2)).taken(3)
            ((2,), (0, 2))
        """
        return (number - 1,) if self.inputs is None else self.inputs

    def as_json(self) -> dict[str, Any]:
        """The step as plain data."""
        content: dict[str, Any] = {"kind": self.kind, **self.settings}
        if self.name:
            content["name"] = self.name
        if self.kind in PRODUCTS:
            content |= {"binary": self.binary, "bias": self.bias}
        if self.inputs is not None:
            content["inputs"] = list(self.inputs)
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
        inputs = rest.pop("inputs", None)
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"unsupported operation: {reprlib.repr(kind)}")
        if not isinstance(name, str):
            raise ValueError(f"{kind}: name must be a string, got {reprlib.repr(name)}")
        try:
            _check_flags(binary=binary, bias=bias)
            check_settings(KINDS[kind].settings, rest)
            KINDS[kind].check(rest)
            taken = None if inputs is None else _numbers(inputs)
        except ValueError as error:
            raise ValueError(f"{label(kind, name)}: {error}") from error
        return cls(kind, name, rest, binary, bias, taken)


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


def _numbers(inputs: Any) -> tuple[int, ...]:
    if not isinstance(inputs, list) or not all(type(number) is int for number in inputs):
        raise ValueError(f"inputs must be a list of integers, got {reprlib.repr(inputs)}")
    return tuple(inputs)


def values(steps: Iterable[Step], image: Sequence[int]) -> list[Value]:
    """The input of a network and what each step makes of it.

    Args:
        steps: The steps.
        image: Channels, height and width of an image.

    Raises:
        ValueError: A step cannot take its inputs, or takes a value that is not made before it.

    Example:
        >>> for value in values([Step("flatten"), Step("add", inputs=(1, 1))], (1, 2, 3)):
        ...     print(value)
        (1, 2, 3)
        (6,)
        (6,)
    """
    found = [Value((1, *image))]
    for step in steps:
        found.append(value_after(step, found))
    return found


def value_after(step: Step, before: Sequence[Value]) -> Value:
    """What a step makes, given all values before it.

    Raises:
        ValueError: The step cannot take its inputs, or takes a value that is not made before it.
    """
    named = label(step.kind, step.name)
    taken = step.taken(len(before))
    for number in taken:
        if not 0 <= number < len(before):
            raise ValueError(
                f"{named}: takes the value {reprlib.repr(number)}, and those before it are 0 to "
                f"{len(before) - 1}"
            )
    inputs = [before[number] for number in taken]
    result = KINDS[step.kind].after(step.settings, inputs)
    shown = _shown(inputs)
    if result is None:
        raise ValueError(
            f"{named}: cannot take {shown}; its settings are {reprlib.repr(step.settings)}"
        )
    if any(size < 1 for size in result.sizes) or result.numel >= SIZE_LIMIT:
        raise ValueError(
            f"{named}: the output for {shown} has shape {result}, which is empty or has "
            f"2**{SIZE_BITS} elements or more"
        )
    return result


def _shown(inputs: Sequence[Value]) -> str:
    if len(inputs) == 1:
        return f"an input of shape {inputs[0]}"
    if not inputs:
        return "no inputs"
    more = ", ..." if len(inputs) > 4 else ""
    return f"inputs of shapes {', '.join(map(str, inputs[:4]))}{more}"


def shapes(steps: Iterable[Step], image: Sequence[int]) -> list[tuple[int, ...]]:
    """The shape of one image's part of what each step makes.

    Args:
        steps: The steps.
        image: Channels, height and width of an image.

    Raises:
        ValueError: A step cannot take its inputs.

    Example:
        >>> shapes([Step("flatten"), Step("relu")], (1, 2, 3))
        [(6,), (6,)]
    """
    return [value.of_an_image for value in values(steps, image)[1:]]


def needed_version(steps: Sequence[Step], found: Sequence[Value]) -> int:
    """The first format version that can hold a network.

    Args:
        steps: The steps.
        found: The values of the network; see `values`.

    Example:
        >>> steps = [Step("flatten"), Step("gelu")]
        >>> needed_version(steps, values(steps, (1, 2, 3)))
        2
    """
    for step, before in zip(steps, found, strict=False):
        # Version 1 knew chains, and linear layers of vectors.
        sequence = step.kind == "linear" and len(before.sizes) != 2
        if KINDS[step.kind].version > 1 or step.inputs is not None or sequence:
            return 2
    return 1
