"""What the operations of an exported graph are as steps.

Each function here has the arguments of torch's operation, after the builder and the node; those
that have no meaning at test time are swallowed by ``*_``.
"""

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from bclightning.inference.builder import BATCH_SIZE, Builder, Constant, Made, UnsupportedError
from bclightning.inference.settings import BATCH

Result = Made | Constant | list[Any]


def _axis(build: Builder, x: Made, axis: int) -> int:
    return axis % max(1, len(build.of(x).sizes))


def _numbers(value: Any, count: int) -> list[int]:
    """An argument of a convolution or a pooling, one number for each axis."""
    found = list(value) if isinstance(value, list | tuple) else [value]
    return [int(number) for number in (found if len(found) == count else found * count)]


def _nothing(build: Builder, node: fx.Node, x: Made, *_: Any, **__: Any) -> Result:
    return x


def _converted(build: Builder, node: fx.Node, x: Made, *_: Any, **__: Any) -> Result:
    if not node.meta["val"].is_floating_point():
        raise UnsupportedError(f"it converts to {node.meta['val'].dtype}")
    return x


def _as(kind: str, *keys: str) -> Callable[..., Result]:
    """An operation of one input, whose other arguments are settings of the same order."""

    def convert(build: Builder, node: fx.Node, x: Made, *given: Any, **named: Any) -> Result:
        if len(given) > len(keys) or not set(named) <= set(keys):
            raise UnsupportedError(f"it has the arguments {[*given, *named.values()]}")
        settings = _DEFAULTS.get(kind, {}) | dict(zip(keys, given, strict=False)) | named
        return build.add(kind, x, **settings)

    return convert


_DEFAULTS: dict[str, dict[str, Any]] = {
    "gelu": {"approximate": "none"},
    "leaky_relu": {"negative_slope": 0.01},
    "elu": {"alpha": 1.0},
}


def _clamp(build: Builder, node: fx.Node, x: Made, min: Any = None, max: Any = None) -> Result:
    # Beyond these there are only numbers that overflow.
    low, high = -1e30 if min is None else float(min), 1e30 if max is None else float(max)
    return build.add("clamp", x, low=low, high=high)


def _hardtanh(build: Builder, node: fx.Node, x: Made, low: float = -1, high: float = 1) -> Result:
    return _clamp(build, node, x, low, high)


def _relu6(build: Builder, node: fx.Node, x: Made) -> Result:
    return _clamp(build, node, x, 0, 6)


def _prelu(build: Builder, node: fx.Node, x: Made, weight: Constant) -> Result:
    positive = build.add("relu", x)
    slopes = weight.tensor.detach().reshape(-1, *[1] * (len(build.of(x).sizes) - 2))
    slope = Constant(slopes, weight.name)
    negative = build.add("multiply", build.add("subtract", x, positive), slope)
    return build.add("add", positive, negative)


def _arithmetic(kind: str) -> Callable[..., Result]:
    def convert(build: Builder, node: fx.Node, a: Any, b: Any, alpha: float = 1) -> Result:
        if alpha != 1:
            b = build.add("multiply", b, alpha)
        return build.add(kind, a, b)

    return convert


def _reversed(build: Builder, node: fx.Node, a: Any, b: Any, alpha: float = 1) -> Result:
    return _arithmetic("subtract")(build, node, b, a, alpha)


def _negated(build: Builder, node: fx.Node, x: Made) -> Result:
    return build.add("multiply", x, -1)


def _rsqrt(build: Builder, node: fx.Node, x: Made) -> Result:
    return build.add("divide", 1, build.add("sqrt", x))


def _reciprocal(build: Builder, node: fx.Node, x: Made) -> Result:
    return build.add("divide", 1, x)


def _power(build: Builder, node: fx.Node, x: Made, exponent: Any) -> Result:
    if exponent == 2:
        return build.add("multiply", x, x)
    if exponent == 0.5:
        return build.add("sqrt", x)
    if exponent == -0.5:
        return _rsqrt(build, node, x)
    raise UnsupportedError(f"the exponent is {exponent}")


def _linear(build: Builder, node: fx.Node, x: Made, weight: Any, bias: Any = None) -> Result:
    constants = build.weight(node, weight)
    outputs, features = weight.tensor.shape
    return build.add(
        "linear",
        x,
        name=build.name(node),
        constants=constants | _bias(build, bias),
        in_features=features,
        out_features=outputs,
    )


def _bias(build: Builder, bias: Any) -> dict[str, Any]:
    if bias is None:
        return {}
    if not isinstance(bias, Constant):
        raise UnsupportedError("its bias depends on the image")
    build.refuse_latent(bias)
    return {"bias": bias.tensor}


def _matmul(build: Builder, node: fx.Node, a: Any, b: Any) -> Result:
    if isinstance(b, Constant) and b.tensor.dim() == 2:
        build.refuse_latent(b)
        return _linear(build, node, a, Constant(b.tensor.detach().T, b.name))
    return build.add("matmul", a, b)


def _addmm(
    build: Builder, node: fx.Node, bias: Any, a: Any, b: Any, beta: float = 1, alpha: float = 1
) -> Result:
    if (beta, alpha) != (1, 1):
        raise UnsupportedError(f"it has the factors {beta} and {alpha}")
    return build.add("add", _matmul(build, node, a, b), bias)


def _attention(
    build: Builder,
    node: fx.Node,
    q: Any,
    k: Any,
    v: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Result:
    if attn_mask is not None or is_causal or enable_gqa:
        raise UnsupportedError("it has a mask, or groups of queries")
    queries = build.operand(q)
    if scale is None:
        scale = 1 / math.sqrt(build.of(queries).sizes[-1])
    return build.add("attention", queries, k, v, scale=float(scale))


def _conv(axes: int) -> Callable[..., Result]:
    def convert(
        build: Builder,
        node: fx.Node,
        x: Made,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> Result:
        constants = build.weight(node, weight)
        outputs, inputs, *kernel = weight.tensor.shape
        dilations = _numbers(dilation, axes)
        pads = _padding(padding, kernel, dilations)
        symmetric = [min(pair) for pair in pads]
        # What a step may pad is limited, as a stranger's file could ask for anything.
        small = all(
            2 * number <= each * (size - 1) + 1
            for number, each, size in zip(symmetric, dilations, kernel, strict=True)
        )
        if not small or any(before != after for before, after in pads):
            x = build.add("pad", x, pads=[[0, 0], [0, 0], *pads])
            symmetric = [0] * axes
        return build.add(
            f"conv{axes}d",
            x,
            name=build.name(node),
            constants=constants | _bias(build, bias),
            in_channels=inputs * groups,
            out_channels=outputs,
            kernel_size=kernel,
            stride=_numbers(stride, axes),
            padding=symmetric,
            dilation=dilations,
            groups=groups,
        )

    return convert


def _padding(padding: Any, kernel: list[int], dilations: list[int]) -> list[list[int]]:
    """What a convolution adds before and after each axis."""
    if padding == "valid":
        return [[0, 0] for _ in kernel]
    if padding == "same":
        totals = [each * (size - 1) for each, size in zip(dilations, kernel, strict=True)]
        return [[total // 2, total - total // 2] for total in totals]
    return [[number, number] for number in _numbers(padding, len(kernel))]


def _convolution(
    build: Builder,
    node: fx.Node,
    x: Made,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Result:
    if transposed:
        raise UnsupportedError("it is transposed")
    convert = _conv(len(build.of(x).sizes) - 2)
    return convert(build, node, x, weight, bias, stride, padding, dilation, groups)


def _batch_norm(
    build: Builder,
    node: fx.Node,
    x: Made,
    weight: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    training: bool,
    momentum: float,
    eps: float,
    cudnn: bool = False,
) -> Result:
    if training or mean is None or variance is None:
        raise UnsupportedError("it has no running statistics")
    statistics = {"mean": mean.tensor, "variance": variance.tensor, "eps": eps}
    return _affine(build, node, x, statistics, weight, bias)


def _batch_norm_no_training(
    build: Builder,
    node: fx.Node,
    x: Made,
    weight: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    *rest: Any,
) -> Result:
    return [_batch_norm(build, node, x, weight, bias, mean, variance, False, *rest)]


def _affine(
    build: Builder, node: fx.Node, x: Made, statistics: dict[str, Any], weight: Any, bias: Any
) -> Made:
    """A scale and a shift for each channel: the statistics and what was learned, folded."""
    learned = (("gain", weight), ("bias", bias))
    constants = statistics | {key: entry.tensor for key, entry in learned if entry is not None}
    channels = len(statistics["mean"])
    return build.add("affine", x, name=build.name(node), constants=constants, channels=channels)


def _layer_norm(
    build: Builder,
    node: fx.Node,
    x: Made,
    shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn: bool = False,
) -> Result:
    affine = weight is not None or bias is not None
    constants = {
        "scale": torch.ones(shape) if weight is None else weight.tensor,
        "shift": torch.zeros(shape) if bias is None else bias.tensor,
    }
    return build.add(
        "layer_norm",
        x,
        name=build.name(node) if affine else "",
        constants=constants if affine else {},
        shape=list(shape),
        eps=eps,
        affine=affine,
    )


def _group_norm(
    build: Builder,
    node: fx.Node,
    x: Made,
    groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    cudnn: bool = False,
) -> Result:
    _, channels, *sides = build.of(x).sizes
    size = channels // groups * math.prod(sides)
    rows = build.add("reshape", x, shape=[BATCH, groups, size])
    rows = build.add("layer_norm", rows, shape=[size], eps=eps, affine=False)
    made = build.add("reshape", rows, shape=[BATCH, channels, *sides])
    if weight is None and bias is None:
        return made
    none = {"mean": torch.zeros(channels), "variance": torch.ones(channels), "eps": 0.0}
    return _affine(build, node, made, none, weight, bias)


def _instance_norm(
    build: Builder,
    node: fx.Node,
    x: Made,
    weight: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn: bool = False,
) -> Result:
    if not use_input_stats:
        return _batch_norm(build, node, x, weight, bias, mean, variance, False, momentum, eps)
    return _group_norm(build, node, x, build.of(x).sizes[1], weight, bias, eps)


def _max_pool(axes: int) -> Callable[..., Result]:
    def convert(
        build: Builder,
        node: fx.Node,
        x: Made,
        kernel: Any,
        stride: Any = (),
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
    ) -> Result:
        if _numbers(dilation, axes) != [1] * axes:
            raise UnsupportedError(f"its dilation is {dilation}")
        return _pool(build, f"max_pool{axes}d", axes, x, kernel, stride, padding)

    return convert


def _avg_pool(axes: int) -> Callable[..., Result]:
    def convert(
        build: Builder,
        node: fx.Node,
        x: Made,
        kernel: Any,
        stride: Any = (),
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Result:
        if divisor_override is not None:
            raise UnsupportedError(f"its divisor is {divisor_override}")
        more = {"count_include_pad": count_include_pad}
        return _pool(build, f"avg_pool{axes}d", axes, x, kernel, stride, padding, **more)

    return convert


def _pool(
    build: Builder, kind: str, axes: int, x: Made, kernel: Any, stride: Any, padding: Any, **s: Any
) -> Made:
    sizes = _numbers(kernel, axes)
    strides = _numbers(stride, axes) if stride else sizes
    return build.add(
        kind, x, kernel_size=sizes, stride=strides, padding=_numbers(padding, axes), **s
    )


def _adaptive_pool(axes: int, kind: str) -> Callable[..., Result]:
    def convert(build: Builder, node: fx.Node, x: Made, size: Any) -> Result:
        sides = build.of(x).sizes[2:]
        wanted = _numbers(size, axes)
        if wanted == [1] * axes:
            return build.add(kind, x, axes=list(range(2, 2 + axes)), keepdim=True)
        if any(side % want for side, want in zip(sides, wanted, strict=True)):
            if kind == "max":
                raise UnsupportedError(f"windows for {wanted} of {list(sides)} differ in size")
            return _uneven_mean(build, node, x, wanted)
        window = [side // want for side, want in zip(sides, wanted, strict=True)]
        more = {"count_include_pad": True} if kind == "mean" else {}
        pool = {"mean": "avg", "max": "max"}[kind]
        return _pool(build, f"{pool}_pool{axes}d", axes, x, window, window, 0, **more)

    return convert


def _adaptive_max_pool(axes: int) -> Callable[..., Result]:
    def convert(build: Builder, node: fx.Node, x: Made, size: Any) -> Result:
        # Its second result says where the largest values are.
        return [_adaptive_pool(axes, "max")(build, node, x, size)]

    return convert


def _uneven_mean(build: Builder, node: fx.Node, x: Made, wanted: list[int]) -> Made:
    """Means over windows that differ in size, as a product with a matrix for each axis."""
    for axis, want in enumerate(wanted, 2):
        side = build.of(x).sizes[axis]
        matrix = functional.adaptive_avg_pool1d(torch.eye(side)[None], want)[0]
        last = len(build.of(x).sizes) - 1
        order = [i for i in range(last + 1) if i != axis] + [axis]
        moved = build.add("permute", x, axes=order) if axis != last else x
        made = build.add("matmul", moved, Constant(matrix, f"{node.name}.windows.{axis}"))
        back = [order.index(i) for i in range(last + 1)]
        x = build.add("permute", made, axes=back) if axis != last else made
    return x


def _reduced(kind: str) -> Callable[..., Result]:
    def convert(
        build: Builder,
        node: fx.Node,
        x: Made,
        axes: Any = None,
        keepdim: bool = False,
        dtype: Any = None,
    ) -> Result:
        given = range(len(build.of(x).sizes)) if axes is None else axes
        axes = sorted({_axis(build, x, axis) for axis in given})
        return build.add(kind, x, axes=axes, keepdim=keepdim)

    return convert


def _sum(
    build: Builder,
    node: fx.Node,
    x: Made,
    axes: Any = None,
    keepdim: bool = False,
    dtype: Any = None,
) -> Result:
    mean = _reduced("mean")(build, node, x, axes, keepdim)
    count = build.of(x).numel // build.of(build.operand(mean)).numel
    return build.add("multiply", mean, count)


def _softmax(build: Builder, node: fx.Node, x: Made, axis: int, *_: Any, **__: Any) -> Result:
    return build.add("softmax", x, axis=_axis(build, x, axis))


def _reshape(build: Builder, node: fx.Node, x: Made, *_: Any, **__: Any) -> Result:
    return _with_shape(build, x, build.shape_of(node))


def _with_shape(build: Builder, x: Made, shape: list[int]) -> Made:
    before = build.of(x)
    if shape == [BATCH if i == before.batch else size for i, size in enumerate(before.sizes)]:
        return x
    if before.batch == 0 and before.sizes[0] == 1 and shape == [BATCH, before.numel]:
        return build.add("flatten", x)
    return build.add("reshape", x, shape=shape)


def _permute(build: Builder, node: fx.Node, x: Made, axes: Any) -> Result:
    order = [_axis(build, x, axis) for axis in axes]
    return x if order == sorted(order) else build.add("permute", x, axes=order)


def _transpose(build: Builder, node: fx.Node, x: Made, first: int = 0, second: int = 1) -> Result:
    order = list(range(len(build.of(x).sizes)))
    a, b = _axis(build, x, first), _axis(build, x, second)
    order[a], order[b] = order[b], order[a]
    return _permute(build, node, x, order)


def _mt(build: Builder, node: fx.Node, x: Made) -> Result:
    return _transpose(build, node, x, -2, -1)


def _slice(
    build: Builder,
    node: fx.Node,
    x: Made,
    axis: int = 0,
    start: Any = None,
    stop: Any = None,
    step: int = 1,
) -> Result:
    axis = _axis(build, x, axis)
    if axis == build.of(x).batch:
        # As a slice without an end is written, or one to the size of the batch.
        whole = not start and (stop is None or stop is BATCH_SIZE or stop >= 2**31)
        if whole and step == 1:
            return x
        raise UnsupportedError("it takes some images of a batch")
    first, last, _ = slice(start, stop, step).indices(build.of(x).sizes[axis])
    return _part(build, x, axis, first, last, step)


def _part(build: Builder, x: Made, axis: int, start: int, stop: int, step: int = 1) -> Made:
    if (start, stop, step) == (0, build.of(x).sizes[axis], 1):
        return x
    return build.add("slice", x, axis=axis, start=start, stop=stop, step=step)


def _select(build: Builder, node: fx.Node, x: Made, axis: int, index: int) -> Result:
    return _selected(build, x, _axis(build, x, axis), index)


def _selected(build: Builder, x: Made, axis: int, index: int) -> Made:
    value = build.of(x)
    if axis == value.batch:
        raise UnsupportedError("it takes one image of a batch")
    index %= value.sizes[axis]
    part = _part(build, x, axis, index, index + 1)
    shape = [BATCH if i == value.batch else size for i, size in enumerate(value.sizes)]
    return _with_shape(build, part, shape[:axis] + shape[axis + 1 :])


def _unbind(build: Builder, node: fx.Node, x: Made, axis: int = 0) -> Result:
    axis = _axis(build, x, axis)
    return [_selected(build, x, axis, index) for index in range(build.of(x).sizes[axis])]


def _split(build: Builder, node: fx.Node, x: Made, sizes: Any, axis: int = 0) -> Result:
    axis = _axis(build, x, axis)
    if axis == build.of(x).batch:
        raise UnsupportedError("it takes some images of a batch")
    side = build.of(x).sizes[axis]
    if isinstance(sizes, int):
        sizes = [min(sizes, side - start) for start in range(0, side, sizes)]
    parts, start = [], 0
    for size in sizes:
        parts.append(_part(build, x, axis, start, start + size))
        start += size
    return parts


def _chunk(build: Builder, node: fx.Node, x: Made, chunks: int, axis: int = 0) -> Result:
    axis = _axis(build, x, axis)
    return _split(build, node, x, -(-build.of(x).sizes[axis] // chunks), axis)


def _item(build: Builder, node: fx.Node, parts: list[Any], index: int) -> Result:
    if index >= len(parts):
        raise UnsupportedError(f"its result number {index + 1} is used")
    return parts[index]


def _concat(build: Builder, node: fx.Node, parts: list[Any], axis: int = 0) -> Result:
    made = [build.operand(part) for part in parts]
    return build.add("concat", *made, axis=_axis(build, made[0], axis))


def _stack(build: Builder, node: fx.Node, parts: list[Any], axis: int = 0) -> Result:
    shape = build.shape_of(node)
    axis %= len(shape)
    one = [*shape[:axis], 1, *shape[axis + 1 :]]
    made = [_with_shape(build, build.operand(part), one) for part in parts]
    return build.add("concat", *made, axis=axis)


def _expand(build: Builder, node: fx.Node, x: Any, *_: Any, **__: Any) -> Result:
    shape = build.shape_of(node)
    if isinstance(x, Constant):
        return _for_each_image(build, node, x, shape)
    value = build.of(x)
    own = [BATCH if i == value.batch else size for i, size in enumerate(value.sizes)]
    x = _with_shape(build, x, [1] * (len(shape) - len(own)) + own)
    return x if shape == own else build.add("expand", x, shape=shape)


def _for_each_image(build: Builder, node: fx.Node, x: Constant, shape: list[int]) -> Made:
    """A constant, as a class token, for each image of a batch."""
    tensor = x.tensor
    build.refuse_latent(x)
    if shape[0] != BATCH or BATCH in shape[1:] or (len(shape) == tensor.dim() != 0 and
                                                   tensor.shape[0] != 1):  # fmt: skip
        raise UnsupportedError("it repeats a constant along another axis than the first")
    if tensor.dim() == len(shape):
        tensor = tensor[0]
    one = tensor.expand(shape[1:])[None]
    wanted = x if one.shape == x.tensor.shape else Constant(one, x.name)
    return build.add("expand_batch", wanted, Made(0))


def _repeat(build: Builder, node: fx.Node, x: Any, times: Any) -> Result:
    shape = build.shape_of(node)
    if not isinstance(x, Constant) or len(times) != x.tensor.dim():
        raise UnsupportedError("it repeats what depends on the image")
    if list(x.tensor.shape[1:]) != shape[1:]:
        raise UnsupportedError("it repeats a constant along another axis than the first")
    return _for_each_image(build, node, x, shape)


def _pad(
    build: Builder,
    node: fx.Node,
    x: Made,
    pads: Any,
    mode: Any = "constant",
    value: float | None = None,
) -> Result:
    if mode != "constant" or value:
        raise UnsupportedError(f"it pads with {value if mode == 'constant' else mode}, not zeros")
    if min(pads, default=0) < 0:
        raise UnsupportedError("it pads with negative sizes")
    axes = len(build.of(x).sizes)
    # Torch counts axes from the last.
    pairs = [[pads[i], pads[i + 1]] for i in range(0, len(pads), 2)][::-1]
    return build.add("pad", x, pads=[[0, 0]] * (axes - len(pairs)) + pairs)


def _constant_pad(build: Builder, node: fx.Node, x: Made, pads: Any, value: float = 0) -> Result:
    return _pad(build, node, x, pads, "constant", value)


_aten = torch.ops.aten

OPERATIONS: dict[Any, Callable[..., Result]] = {
    operator.getitem: _item,
    **dict.fromkeys(
        (
            _aten.alias.default,
            _aten.clone.default,
            _aten.contiguous.default,
            _aten.detach.default,
            _aten.detach_.default,
            _aten.dropout.default,
            _aten.feature_dropout.default,
            _aten.alpha_dropout.default,
            _aten.lift_fresh_copy.default,
        ),
        _nothing,
    ),
    **dict.fromkeys(
        (
            _aten._to_copy.default,
            _aten.to.dtype,
            _aten.to.dtype_layout,
            _aten.to.device,
            _aten.to.other,
            _aten.type_as.default,
        ),
        _converted,
    ),
    _aten.relu.default: _as("relu"),
    _aten.relu6.default: _relu6,
    _aten.clamp.default: _clamp,
    _aten.clamp_min.default: lambda build, node, x, low: _clamp(build, node, x, low, None),
    _aten.clamp_max.default: lambda build, node, x, high: _clamp(build, node, x, None, high),
    _aten.hardtanh.default: _hardtanh,
    _aten.leaky_relu.default: _as("leaky_relu", "negative_slope"),
    _aten.elu.default: _as("elu", "alpha"),
    _aten.prelu.default: _prelu,
    _aten.gelu.default: _as("gelu", "approximate"),
    _aten.silu.default: _as("silu"),
    _aten.sigmoid.default: _as("sigmoid"),
    _aten.tanh.default: _as("tanh"),
    _aten.hardswish.default: _as("hardswish"),
    _aten.hardsigmoid.default: _as("hardsigmoid"),
    _aten.sqrt.default: _as("sqrt"),
    _aten.exp.default: _as("exp"),
    _aten.abs.default: _as("abs"),
    _aten.sign.default: _as("sign"),
    _aten.neg.default: _negated,
    _aten.rsqrt.default: _rsqrt,
    _aten.reciprocal.default: _reciprocal,
    _aten.pow.Tensor_Scalar: _power,
    **dict.fromkeys((_aten.add.Tensor, _aten.add.Scalar), _arithmetic("add")),
    **dict.fromkeys((_aten.sub.Tensor, _aten.sub.Scalar), _arithmetic("subtract")),
    **dict.fromkeys((_aten.rsub.Tensor, _aten.rsub.Scalar), _reversed),
    **dict.fromkeys((_aten.mul.Tensor, _aten.mul.Scalar), _arithmetic("multiply")),
    **dict.fromkeys((_aten.div.Tensor, _aten.div.Scalar), _arithmetic("divide")),
    _aten.linear.default: _linear,
    **dict.fromkeys((_aten.matmul.default, _aten.mm.default, _aten.bmm.default), _matmul),
    _aten.addmm.default: _addmm,
    _aten.scaled_dot_product_attention.default: _attention,
    _aten.conv1d.default: _conv(1),
    _aten.conv1d.padding: _conv(1),
    _aten.conv2d.default: _conv(2),
    _aten.conv2d.padding: _conv(2),
    _aten.conv3d.default: _conv(3),
    _aten.conv3d.padding: _conv(3),
    _aten.convolution.default: _convolution,
    _aten.batch_norm.default: _batch_norm,
    _aten._native_batch_norm_legit_no_training.default: _batch_norm_no_training,
    _aten.layer_norm.default: _layer_norm,
    _aten.group_norm.default: _group_norm,
    _aten.instance_norm.default: _instance_norm,
    _aten.max_pool1d.default: _max_pool(1),
    _aten.max_pool2d.default: _max_pool(2),
    _aten.avg_pool1d.default: _avg_pool(1),
    _aten.avg_pool2d.default: _avg_pool(2),
    _aten.adaptive_avg_pool1d.default: _adaptive_pool(1, "mean"),
    _aten.adaptive_avg_pool2d.default: _adaptive_pool(2, "mean"),
    _aten.adaptive_max_pool1d.default: _adaptive_max_pool(1),
    _aten.adaptive_max_pool2d.default: _adaptive_max_pool(2),
    _aten.mean.dim: _reduced("mean"),
    _aten.amax.default: _reduced("max"),
    _aten.sum.dim_IntList: _sum,
    **dict.fromkeys((_aten.softmax.int, _aten._softmax.default), _softmax),
    **dict.fromkeys(
        (
            _aten.view.default,
            _aten._unsafe_view.default,
            _aten.reshape.default,
            _aten.flatten.using_ints,
            _aten.unflatten.int,
            _aten.squeeze.dim,
            _aten.squeeze.dims,
            _aten.squeeze.default,
            _aten.unsqueeze.default,
        ),
        _reshape,
    ),
    _aten.permute.default: _permute,
    **dict.fromkeys(
        (_aten.transpose.int, _aten.swapaxes.default, _aten.swapdims.default, _aten.t.default),
        _transpose,
    ),
    _aten.mT.default: _mt,
    _aten.slice.Tensor: _slice,
    _aten.select.int: _select,
    _aten.unbind.int: _unbind,
    **dict.fromkeys(
        (_aten.split.Tensor, _aten.split.sizes, _aten.split_with_sizes.default), _split
    ),
    _aten.chunk.default: _chunk,
    **dict.fromkeys((_aten.cat.default, _aten.concat.default), _concat),
    _aten.stack.default: _stack,
    _aten.expand.default: _expand,
    _aten.repeat.default: _repeat,
    _aten.pad.default: _pad,
    _aten.constant_pad_nd.default: _constant_pad,
}
"""The functions, by torch's operation."""


def is_constant(argument: Any) -> bool:
    """Whether an argument of a node, resolved, depends on no image and on no size of a batch."""
    if isinstance(argument, list | tuple):
        return all(map(is_constant, argument))
    return not isinstance(argument, Made) and argument is not BATCH_SIZE


def constants_in(argument: Any) -> list[Constant]:
    """The constants in the arguments of a node."""
    if isinstance(argument, list | tuple):
        return [constant for entry in argument for constant in constants_in(entry)]
    return [argument] if isinstance(argument, Constant) else []


def tensors_in(argument: Any) -> Any:
    """The arguments of a node with tensors in the place of constants."""
    if isinstance(argument, list | tuple):
        return type(argument)(map(tensors_in, argument))
    return argument.tensor if isinstance(argument, Constant) else argument


def as_constants(result: Any, name: str) -> Any:
    """What an operation on constants has computed, as constants again."""
    if isinstance(result, Tensor):
        return Constant(result.detach(), name)
    if isinstance(result, list | tuple):
        return [as_constants(entry, f"{name}.{index}") for index, entry in enumerate(result)]
    return result
