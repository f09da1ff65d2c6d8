"""The steps of a packed model as nodes of an ONNX graph.

Binary weights stay packed in the file: the graph itself unpacks the bits, which a runtime does once
when it loads the graph.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from bclightning.inference.graph import Step, values
from bclightning.inference.onnx_graph import Graph
from bclightning.inference.packed import PackedModel
from bclightning.inference.values import Value


def add_steps(graph: Graph, model: PackedModel, images: str) -> str:
    """Add the nodes of all steps, and return the name of the last one's result.

    Args:
        graph: The graph.
        model: The packed model.
        images: Name of the prepared images.
    """
    known = values(model.steps, model.image_shape)
    names = [images]
    nodes = _Nodes(graph, model)
    for number, step in enumerate(model.steps, 1):
        taken = step.taken(number)
        nodes.start(str(number - 1), [known[before] for before in taken])
        names.append(STEPS[step.kind](nodes, step, *(names[before] for before in taken)))
    return names[-1]


class _Nodes:
    """Adds the nodes of one step after the other, and names what is between them.

    Attributes:
        inputs: The values that the present step takes.
    """

    inputs: list[Value]

    def __init__(self, graph: Graph, model: PackedModel) -> None:
        self.graph = graph
        self.tensors = model.tensors
        # A layer that is used twice is unpacked once.
        self._unpacked: set[str] = set()
        self._prefix, self._count = "", 0

    def start(self, prefix: str, inputs: list[Value]) -> None:
        """Begin a step, whose results have names that begin with a prefix."""
        self._prefix, self._count, self.inputs = prefix, 0, inputs

    def __call__(self, kind: str, *inputs: str, **settings: Any) -> str:
        """Add a node and return the name of its result."""
        name = f"{self._prefix}.{self._count}" if self._count else self._prefix
        self._count += 1
        return self.graph.node(kind, list(inputs), name, **settings)

    def number(self, value: float) -> str:
        """A constant number."""
        return self.graph.constant(f"number {value!r}", np.float32(value))

    def integers(self, *numbers: int) -> str:
        """A constant list of whole numbers."""
        return self.graph.constant(f"integers {list(numbers)}", np.array(numbers, np.int64))

    def tensor(self, step: Step, end: str, shape: tuple[int, ...] | None = None) -> str:
        """A tensor of a step, in another shape if one is given."""
        name = f"{step.name}.{end}"
        array = self.tensors[name].numpy()
        if shape is None:
            return self.graph.constant(name, array)
        # Another name for another shape: a layer may be used on images and on vectors.
        return self.graph.constant(f"{name} {list(shape)}", array.reshape(shape))

    def weight(self, step: Step) -> str:
        """The name of a product's weight: a constant, or the result of unpacking its bits."""
        name = f"{step.name}.weight"
        if not step.binary:
            return self.tensor(step, "weight")
        if name in self._unpacked:
            return name
        self._unpacked.add(name)
        shape = step.weight_shape
        packed = self.tensors[f"{step.name}.bits"].numpy()
        columns = int(np.prod(shape[1:], dtype=np.int64))
        node, constant = self.graph.node, self.graph.constant
        bits = constant(f"{step.name}.bits", packed[:, :, None])
        places = constant("places", np.arange(8, dtype=np.uint8))
        moved = node("BitShift", [bits, places], f"{name}.moved", direction="RIGHT")
        single = node("BitwiseAnd", [moved, constant("one", np.uint8(1))], f"{name}.single")
        number = node("Cast", [single], f"{name}.number", to=self.graph.onnx.TensorProto.FLOAT)
        doubled = node("Mul", [number, constant("two", np.float32(2))], f"{name}.doubled")
        signs = node("Sub", [doubled, constant("less", np.float32(1))], f"{name}.signs")
        rows = constant(f"{name}.rows", np.array([shape[0], -1], np.int64))
        flat = node("Reshape", [signs, rows], f"{name}.flat")
        ends = [("zero", 0), (f"{name}.columns", columns), ("axis", 1)]
        cut = node(
            "Slice",
            [flat, *(constant(key, np.array([value], np.int64)) for key, value in ends)],
            f"{name}.cut",
        )
        whole = constant(f"{name}.shape", np.array(shape, np.int64))
        return node("Reshape", [cut, whole], name)


def _node(kind: str, **fixed: Any) -> Callable[..., str]:
    """A step that is one node, with its settings or without."""

    def add(add: _Nodes, step: Step, *inputs: str) -> str:
        return add(kind, *inputs, **fixed)

    return add


def _affine(add: _Nodes, step: Step, x: str) -> str:
    shape = (-1, *[1] * (len(add.inputs[0].sizes) - 2))
    scaled = add("Mul", x, add.tensor(step, "scale", shape))
    return add("Add", scaled, add.tensor(step, "shift", shape))


def _linear(add: _Nodes, step: Step, x: str) -> str:
    weight = add.weight(step)
    bias = [add.tensor(step, "bias")] if step.bias else []
    if len(add.inputs[0].sizes) == 2:
        return add("Gemm", x, weight, *bias, transB=1)
    product = add("MatMul", x, add("Transpose", weight, perm=[1, 0]))
    return add("Add", product, *bias) if bias else product


def _conv(add: _Nodes, step: Step, x: str) -> str:
    s = step.settings
    bias = [add.tensor(step, "bias")] if step.bias else []
    return add(
        "Conv",
        x,
        add.weight(step),
        *bias,
        **_window(s),
        dilations=s["dilation"],
        group=s["groups"],
    )


def _window(s: dict[str, Any]) -> dict[str, Any]:
    pads = [*s["padding"], *s["padding"]]
    return {"kernel_shape": s["kernel_size"], "strides": s["stride"], "pads": pads}


def _max_pool(add: _Nodes, step: Step, x: str) -> str:
    return add("MaxPool", x, **_window(step.settings))


def _avg_pool(add: _Nodes, step: Step, x: str) -> str:
    counted = int(step.settings["count_include_pad"])
    return add("AveragePool", x, **_window(step.settings), count_include_pad=counted)


def _reduced(kind: str) -> Callable[..., str]:
    def reduce(add: _Nodes, step: Step, x: str) -> str:
        axes = add.integers(*step.settings["axes"])
        return add(kind, x, axes, keepdims=int(step.settings["keepdim"]))

    return reduce


def _layer_norm(add: _Nodes, step: Step, x: str) -> str:
    shape = step.settings["shape"]
    if step.settings["affine"]:
        scale, shift = add.tensor(step, "scale"), add.tensor(step, "shift")
    else:
        scale = add.graph.constant(f"ones {shape}", np.ones(shape, np.float32))
        shift = add.graph.constant(f"zeros {shape}", np.zeros(shape, np.float32))
    eps = step.settings["eps"]
    return add("LayerNormalization", x, scale, shift, axis=-len(shape), epsilon=eps)


def _parameter(add: _Nodes, step: Step) -> str:
    return add.tensor(step, "value")


def _scalar(add: _Nodes, step: Step) -> str:
    return add.number(step.settings["value"])


def _clamp(add: _Nodes, step: Step, x: str) -> str:
    return add("Clip", x, add.number(step.settings["low"]), add.number(step.settings["high"]))


def _leaky_relu(add: _Nodes, step: Step, x: str) -> str:
    return add("LeakyRelu", x, alpha=step.settings["negative_slope"])


def _elu(add: _Nodes, step: Step, x: str) -> str:
    return add("Elu", x, alpha=step.settings["alpha"])


def _gelu(add: _Nodes, step: Step, x: str) -> str:
    # ONNX has the operation from opset 20 only.
    if step.settings["approximate"] == "tanh":
        cubed = add("Mul", add("Mul", add("Mul", x, x), x), add.number(0.044715))
        inner = add("Mul", add("Add", x, cubed), add.number(math.sqrt(2 / math.pi)))
        share = add("Tanh", inner)
    else:
        share = add("Erf", add("Mul", x, add.number(math.sqrt(0.5))))
    return add("Mul", add("Mul", x, add.number(0.5)), add("Add", share, add.number(1)))


def _silu(add: _Nodes, step: Step, x: str) -> str:
    return add("Mul", x, add("Sigmoid", x))


def _softmax(add: _Nodes, step: Step, x: str) -> str:
    return add("Softmax", x, axis=step.settings["axis"])


def _attention(add: _Nodes, step: Step, q: str, k: str, v: str) -> str:
    axes = list(range(len(add.inputs[0].sizes)))
    turned = add("Transpose", k, perm=[*axes[:-2], axes[-1], axes[-2]])
    scores = add("Mul", add("MatMul", q, turned), add.number(step.settings["scale"]))
    return add("MatMul", add("Softmax", scores, axis=-1), v)


def _reshape(add: _Nodes, step: Step, x: str) -> str:
    return add("Reshape", x, add.integers(*step.settings["shape"]))


def _permute(add: _Nodes, step: Step, x: str) -> str:
    return add("Transpose", x, perm=step.settings["axes"])


def _expand(add: _Nodes, step: Step, x: str) -> str:
    # The batch's size stays, as 1 does not change it.
    return add("Expand", x, add.integers(*(max(size, 1) for size in step.settings["shape"])))


def _expand_batch(add: _Nodes, step: Step, x: str, like: str) -> str:
    batch = add("Shape", like, start=0, end=1)
    ones = len(add.inputs[0].sizes) - 1
    shape = add("Concat", batch, add.integers(*[1] * ones), axis=0) if ones else batch
    return add("Expand", x, shape)


def _slice(add: _Nodes, step: Step, x: str) -> str:
    s = step.settings
    return add("Slice", x, *(add.integers(s[key]) for key in ("start", "stop", "axis", "step")))


def _concat(add: _Nodes, step: Step, *inputs: str) -> str:
    return add("Concat", *inputs, axis=step.settings["axis"])


def _pad(add: _Nodes, step: Step, x: str) -> str:
    before, after = zip(*step.settings["pads"], strict=True)
    return add("Pad", x, add.integers(*before, *after))


STEPS: dict[str, Callable[..., str]] = {
    "flatten": _node("Flatten", axis=1),
    "relu": _node("Relu"),
    "affine": _affine,
    "linear": _linear,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _conv),
    **dict.fromkeys(("max_pool1d", "max_pool2d"), _max_pool),
    **dict.fromkeys(("avg_pool1d", "avg_pool2d"), _avg_pool),
    "mean": _reduced("ReduceMean"),
    "max": _reduced("ReduceMax"),
    "layer_norm": _layer_norm,
    "parameter": _parameter,
    "scalar": _scalar,
    "add": _node("Add"),
    "subtract": _node("Sub"),
    "multiply": _node("Mul"),
    "divide": _node("Div"),
    "clamp": _clamp,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "gelu": _gelu,
    "silu": _silu,
    "sigmoid": _node("Sigmoid"),
    "tanh": _node("Tanh"),
    "hardswish": _node("HardSwish"),
    "hardsigmoid": _node("HardSigmoid", alpha=1 / 6, beta=0.5),
    "sqrt": _node("Sqrt"),
    "exp": _node("Exp"),
    "abs": _node("Abs"),
    "sign": _node("Sign"),
    "softmax": _softmax,
    "matmul": _node("MatMul"),
    "attention": _attention,
    "reshape": _reshape,
    "permute": _permute,
    "expand": _expand,
    "expand_batch": _expand_batch,
    "slice": _slice,
    "concat": _concat,
    "pad": _pad,
}
"""What adds the nodes of a step, by the step's kind."""
