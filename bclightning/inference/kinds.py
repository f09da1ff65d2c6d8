"""The kinds of steps: the settings and the number of inputs of each, and what it makes of them.

A rule holds for every size of the batch: where one is satisfied, torch can compute the step, and
the result has the sizes that the rule says. So a file of a stranger is refused before it is run.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bclightning.inference.settings import (
    BATCH,
    Axes,
    Axis,
    Flag,
    Integer,
    Integers,
    Number,
    OneOf,
    Pads,
    Setting,
    Shape,
)
from bclightning.inference.values import Value, broadcast

Settings = Mapping[str, Any]

Rule = Callable[..., Value | None]
"""From the settings and the inputs to the result; ``None`` where they do not fit."""


@dataclass(frozen=True)
class Kind:
    """What is known of a kind of step.

    Attributes:
        rule: What it makes of its inputs.
        settings: What each setting may be, by name.
        inputs: How many inputs it takes; ``None`` for any number from 1.
        version: The format version that brought it.
        check: Raises a ValueError if settings do not fit each other.
    """

    rule: Rule
    settings: Mapping[str, Setting] = field(default_factory=dict)
    inputs: int | None = 1
    version: int = 2
    check: Callable[[Settings], None] = lambda settings: None

    def after(self, settings: Settings, inputs: Sequence[Value]) -> Value | None:
        """The result for some inputs; ``None`` if it cannot take them."""
        if len(inputs) != self.inputs and not (self.inputs is None and inputs):
            return None
        return self.rule(settings, *inputs)


def _same(_: Settings, x: Value) -> Value:
    return x


def _pair(_: Settings, a: Value, b: Value) -> Value | None:
    return broadcast(a, b)


def _images(x: Value, axes: int) -> bool:
    return x.batch == 0 and len(x.sizes) == axes


def _parameter(s: Settings) -> Value:
    return Value(tuple(s["shape"]), None)


def _scalar(s: Settings) -> Value:
    return Value((), None)


def _flatten(_: Settings, x: Value) -> Value | None:
    if x.batch != 0 or len(x.sizes) < 2:
        return None
    return Value((x.sizes[0], math.prod(x.sizes[1:])))


def _affine(s: Settings, x: Value) -> Value | None:
    return x if x.batch == 0 and len(x.sizes) >= 2 and x.sizes[1] == s["channels"] else None


def _layer_norm(s: Settings, x: Value) -> Value | None:
    shape, first = tuple(s["shape"]), len(x.sizes) - len(s["shape"])
    return x if shape and x.sizes[max(first, 0) :] == shape and _before(x, first) else None


def _before(x: Value, axis: int) -> bool:
    """Whether the batch's axis, if there is one, comes before another axis."""
    return x.batch is None or x.batch < axis


def _linear(s: Settings, x: Value) -> Value | None:
    last = len(x.sizes) - 1
    if last < 1 or x.sizes[last] != s["in_features"] or not _before(x, last):
        return None
    return x.with_sizes([*x.sizes[:-1], s["out_features"]])


def _conv(s: Settings, x: Value) -> Value | None:
    if not _images(x, len(s["kernel_size"]) + 2) or x.sizes[1] != s["in_channels"]:
        return None
    return x.with_sizes([x.sizes[0], s["out_channels"], *_sides(s, x.sizes[2:])])


def _pool(s: Settings, x: Value) -> Value | None:
    if not _images(x, len(s["kernel_size"]) + 2):
        return None
    return x.with_sizes([*x.sizes[:2], *_sides(s, x.sizes[2:])])


def _sides(s: Settings, sides: Sequence[int]) -> list[int]:
    windows = zip(
        sides,
        s["padding"],
        s.get("dilation", [1] * len(sides)),
        s["kernel_size"],
        s["stride"],
        strict=True,
    )
    return [
        (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for side, padding, dilation, kernel, stride in windows
    ]


def _reduced(s: Settings, x: Value) -> Value | None:
    axes = s["axes"]
    if max(axes) >= len(x.sizes) or x.batch in axes:
        return None
    if s["keepdim"]:
        return x.with_sizes([1 if axis in axes else size for axis, size in enumerate(x.sizes)])
    kept = [axis for axis in range(len(x.sizes)) if axis not in axes]
    batch = None if x.batch is None else kept.index(x.batch)
    return Value(tuple(x.sizes[axis] for axis in kept), batch)


def _softmax(s: Settings, x: Value) -> Value | None:
    return x if s["axis"] < len(x.sizes) and s["axis"] != x.batch else None


def _matmul(_: Settings, a: Value, b: Value) -> Value | None:
    if min(len(a.sizes), len(b.sizes)) < 2 or a.sizes[-1] != b.sizes[-2]:
        return None
    rows, columns = len(a.sizes) - 2, len(b.sizes) - 2
    if not _before(b, columns) or not _before(a, rows + 1):
        return None
    if a.batch == rows:
        # Images are rows: one matrix for all of them.
        if b.batch is not None or columns:
            return None
        return a.with_sizes([*a.sizes[:-1], b.sizes[-1]])
    outer = broadcast(Value(a.sizes[:-2], a.batch), Value(b.sizes[:-2], b.batch))
    return outer and outer.with_sizes([*outer.sizes, a.sizes[-2], b.sizes[-1]])


def _attention(_: Settings, q: Value, k: Value, v: Value) -> Value | None:
    axes = len(q.sizes)
    if axes < 3 or not len(k.sizes) == len(v.sizes) == axes or not q.batch == k.batch == v.batch:
        return None
    if not _before(q, axes - 2) or not q.sizes[:-2] == k.sizes[:-2] == v.sizes[:-2]:
        return None
    if q.sizes[-1] != k.sizes[-1] or k.sizes[-2] != v.sizes[-2]:
        return None
    return q.with_sizes([*q.sizes[:-1], v.sizes[-1]])


def _reshape(s: Settings, x: Value) -> Value | None:
    shape = s["shape"]
    known = math.prod(size for size in shape if size != BATCH)
    if x.batch is None:
        return Value(tuple(shape), None) if BATCH not in shape and known == x.numel else None
    if BATCH not in shape or x.numel % known:
        return None
    batch = shape.index(BATCH)
    return Value((*shape[:batch], x.numel // known, *shape[batch + 1 :]), batch)


def _permute(s: Settings, x: Value) -> Value | None:
    axes = s["axes"]
    if sorted(axes) != list(range(len(x.sizes))):
        return None
    batch = None if x.batch is None else axes.index(x.batch)
    return Value(tuple(x.sizes[axis] for axis in axes), batch)


def _expand(s: Settings, x: Value) -> Value | None:
    shape = s["shape"]
    if len(shape) != len(x.sizes):
        return None
    sizes = []
    for axis, (size, wanted) in enumerate(zip(x.sizes, shape, strict=True)):
        if (wanted == BATCH) != (axis == x.batch) or (wanted != BATCH and size not in (1, wanted)):
            return None
        sizes.append(size if wanted == BATCH else wanted)
    return x.with_sizes(sizes)


def _expand_batch(_: Settings, x: Value, like: Value) -> Value | None:
    if x.batch is not None or x.sizes[:1] != (1,) or like.batch != 0:
        return None
    return Value(x.sizes) if like.sizes[like.batch] == 1 else None


def _slice(s: Settings, x: Value) -> Value | None:
    axis = s["axis"]
    if axis >= len(x.sizes) or axis == x.batch or not s["start"] < s["stop"] <= x.sizes[axis]:
        return None
    count = len(range(s["start"], s["stop"], s["step"]))
    return x.with_sizes([*x.sizes[:axis], count, *x.sizes[axis + 1 :]])


def _concat(s: Settings, first: Value, *others: Value) -> Value | None:
    axis = s["axis"]
    if axis >= len(first.sizes) or axis == first.batch:
        return None
    total = first.sizes[axis]
    for value in others:
        if value.batch != first.batch or len(value.sizes) != len(first.sizes):
            return None
        if any(a != b for i, (a, b) in enumerate(zip(value.sizes, first.sizes, strict=True))
               if i != axis):  # fmt: skip
            return None
        total += value.sizes[axis]
    return first.with_sizes([*first.sizes[:axis], total, *first.sizes[axis + 1 :]])


def _pad(s: Settings, x: Value) -> Value | None:
    pads = s["pads"]
    if len(pads) != len(x.sizes) or (x.batch is not None and pads[x.batch] != [0, 0]):
        return None
    return x.with_sizes([size + sum(pair) for size, pair in zip(x.sizes, pads, strict=True)])


def _check_window(s: Settings) -> None:
    # What is padded further computes on zeros alone, and its results could grow without end.
    dilations = s.get("dilation", [1] * len(s["padding"]))
    sides = zip(s["kernel_size"], dilations, s["padding"], strict=True)
    if any(2 * padding > dilation * (kernel - 1) + 1 for kernel, dilation, padding in sides):
        raise ValueError(
            "padding must be at most half of the effective kernel size, "
            f"got padding {s['padding']} and kernel_size {s['kernel_size']}"
        )


def _check_conv(s: Settings) -> None:
    for key in ("in_channels", "out_channels"):
        if s[key] % s["groups"]:
            raise ValueError(f"{key} must be divisible by groups, got {s[key]} and {s['groups']}")
    _check_window(s)


def _check_clamp(s: Settings) -> None:
    if s["low"] > s["high"]:
        raise ValueError(f"low must not be above high, got {s['low']} and {s['high']}")


def _window(axes: int) -> dict[str, Setting]:
    return {
        "kernel_size": Integers(axes),
        "stride": Integers(axes),
        "padding": Integers(axes, least=0),
    }


def _conv_kind(axes: int, version: int = 2) -> Kind:
    settings: dict[str, Setting] = {"in_channels": Integer(), "out_channels": Integer()}
    settings |= _window(axes) | {"dilation": Integers(axes), "groups": Integer()}
    return Kind(_conv, settings, version=version, check=_check_conv)


def _pool_kind(axes: int, version: int = 2, **more: Setting) -> Kind:
    return Kind(_pool, _window(axes) | more, version=version, check=_check_window)


_REDUCED: dict[str, Setting] = {"axes": Axes(), "keepdim": Flag()}

KINDS: dict[str, Kind] = {
    "flatten": Kind(_flatten, version=1),
    "relu": Kind(_same, version=1),
    "affine": Kind(_affine, {"channels": Integer()}, version=1),
    "linear": Kind(_linear, {"in_features": Integer(), "out_features": Integer()}, version=1),
    "conv1d": _conv_kind(1),
    "conv2d": _conv_kind(2, version=1),
    "conv3d": _conv_kind(3),
    "max_pool1d": _pool_kind(1),
    "max_pool2d": _pool_kind(2, version=1),
    "avg_pool1d": _pool_kind(1, count_include_pad=Flag()),
    "avg_pool2d": _pool_kind(2, count_include_pad=Flag()),
    "mean": Kind(_reduced, _REDUCED),
    "max": Kind(_reduced, _REDUCED),
    "layer_norm": Kind(_layer_norm, {"shape": Shape(), "eps": Number(0.0), "affine": Flag()}),
    "parameter": Kind(_parameter, {"shape": Shape()}, inputs=0),
    "scalar": Kind(_scalar, {"value": Number()}, inputs=0),
    "add": Kind(_pair, inputs=2),
    "subtract": Kind(_pair, inputs=2),
    "multiply": Kind(_pair, inputs=2),
    "divide": Kind(_pair, inputs=2),
    "clamp": Kind(_same, {"low": Number(), "high": Number()}, check=_check_clamp),
    "leaky_relu": Kind(_same, {"negative_slope": Number()}),
    "elu": Kind(_same, {"alpha": Number()}),
    "gelu": Kind(_same, {"approximate": OneOf(("none", "tanh"))}),
    "silu": Kind(_same),
    "sigmoid": Kind(_same),
    "tanh": Kind(_same),
    "hardswish": Kind(_same),
    "hardsigmoid": Kind(_same),
    "sqrt": Kind(_same),
    "exp": Kind(_same),
    "abs": Kind(_same),
    "sign": Kind(_same),
    "softmax": Kind(_softmax, {"axis": Axis()}),
    "matmul": Kind(_matmul, inputs=2),
    "attention": Kind(_attention, {"scale": Number()}, inputs=3),
    "reshape": Kind(_reshape, {"shape": Shape(batch=True)}),
    "permute": Kind(_permute, {"axes": Axes()}),
    "expand": Kind(_expand, {"shape": Shape(batch=True)}),
    "expand_batch": Kind(_expand_batch, inputs=2),
    "slice": Kind(
        _slice, {"axis": Axis(), "start": Integer(0), "stop": Integer(), "step": Integer()}
    ),
    "concat": Kind(_concat, {"axis": Axis()}, inputs=None),
    "pad": Kind(_pad, {"pads": Pads()}),
}
"""All kinds, by name."""
