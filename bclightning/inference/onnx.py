"""A packed model as an ONNX graph, for runtimes outside Python.

Binary weights stay packed in the file: the graph itself unpacks the bits, which a runtime does once
when it loads the graph.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bclightning.errors import UserError
from bclightning.inference.graph import Step
from bclightning.inference.packed import PackedModel

# The first with BitwiseAnd.
OPSET = 18

# The intermediate representation of that opset; older runtimes cannot read a later one.
IR_VERSION = 8


def as_onnx(model: PackedModel) -> bytes:
    """The graph of a packed model, serialized.

    Its input is ``images``: prepared images of shape (batch, channels, height, width), float32. Its
    output is ``scores``, of shape (batch, classes). The preprocessing is not part of the graph; the
    graph's metadata hold its description and the model's `about`.

    Args:
        model: The packed model.

    Raises:
        UserError: The package onnx is not installed.
    """
    onnx = _need("onnx")
    graph = _Graph(onnx)
    last = "images"
    for index, step in enumerate(model.steps):
        last = graph.add_step(step, model, last, str(index))
    graph.node("Identity", [last], "scores")
    value = onnx.helper.make_tensor_value_info
    float32 = onnx.TensorProto.FLOAT
    made = onnx.helper.make_graph(
        graph.nodes,
        "bclightning",
        [value("images", float32, ["batch", *model.image_shape])],
        [value("scores", float32, ["batch", len(model.class_names)])],
        graph.constants,
    )
    whole = onnx.helper.make_model(
        made,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="bclightning",
    )
    about = {key: str(value) for key, value in model.about.items()}
    about["class_names"] = ", ".join(model.class_names)
    if model.preprocessing is not None:
        about["preprocessing"] = str(model.preprocessing.as_json())
    onnx.helper.set_model_props(whole, about)
    onnx.checker.check_model(whole)
    content: bytes = whole.SerializeToString()
    return content


def onnx_scores(path: Path, images: Tensor) -> Tensor:
    """The scores of prepared images in onnxruntime, of shape (batch, classes).

    Raises:
        UserError: The package onnxruntime is not installed.
    """
    runtime = _need("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (scores,) = session.run(["scores"], {"images": images.numpy()})
    return torch.from_numpy(scores)


class _Graph:
    """The nodes and constants of a graph under construction."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._constant_names: set[str] = set()
        # A layer that is used twice is unpacked once.
        self._unpacked: set[str] = set()

    def node(self, kind: str, inputs: list[str], output: str, **settings: Any) -> str:
        """Add a node and return the name of its output."""
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [output], **settings))
        return output

    def constant(self, name: str, values: Any) -> str:
        """Add a constant, unless one of that name is there."""
        if name not in self._constant_names:
            self._constant_names.add(name)
            self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def add_step(self, step: Step, model: PackedModel, last: str, out: str) -> str:
        """Add a step's nodes and return the name of its result."""
        s = step.settings
        match step.kind:
            case "flatten":
                return self.node("Flatten", [last], out, axis=1)
            case "relu":
                return self.node("Relu", [last], out)
            case "max_pool2d":
                return self.node(
                    "MaxPool",
                    [last],
                    out,
                    kernel_shape=s["kernel_size"],
                    strides=s["stride"],
                    pads=[*s["padding"], *s["padding"]],
                )
            case "affine":
                return self._affine(step, model, last, out)
        weight = self._weight(step, model)
        bias = []
        if step.bias:
            bias = [self.constant(f"{step.name}.bias", model.tensors[f"{step.name}.bias"].numpy())]
        if step.kind == "linear":
            return self.node("Gemm", [last, weight, *bias], out, transB=1)
        return self.node(
            "Conv",
            [last, weight, *bias],
            out,
            kernel_shape=s["kernel_size"],
            strides=s["stride"],
            pads=[*s["padding"], *s["padding"]],
            dilations=s["dilation"],
            group=s["groups"],
        )

    def _affine(self, step: Step, model: PackedModel, last: str, out: str) -> str:
        after_convolution = _follows_images(step, model)
        shape = (-1, 1, 1) if after_convolution else (-1,)
        scale, shift = (
            self.constant(name, model.tensors[name].numpy().reshape(shape))
            for name in (f"{step.name}.scale", f"{step.name}.shift")
        )
        scaled = self.node("Mul", [last, scale], f"{out}.scaled")
        return self.node("Add", [scaled, shift], out)

    def _weight(self, step: Step, model: PackedModel) -> str:
        """The name of a product's weight: a constant, or the result of unpacking its bits."""
        name = f"{step.name}.weight"
        if not step.binary:
            return self.constant(name, model.tensors[name].numpy())
        if name in self._unpacked:
            return name
        self._unpacked.add(name)
        shape = step.weight_shape
        packed = model.tensors[f"{step.name}.bits"].numpy()
        columns = int(np.prod(shape[1:], dtype=np.int64))
        bits = self.constant(f"{step.name}.bits", packed[:, :, None])
        places = self.constant("places", np.arange(8, dtype=np.uint8))
        moved = self.node("BitShift", [bits, places], f"{name}.moved", direction="RIGHT")
        single = self.node(
            "BitwiseAnd", [moved, self.constant("one", np.uint8(1))], f"{name}.single"
        )
        number = self.node("Cast", [single], f"{name}.number", to=self.onnx.TensorProto.FLOAT)
        doubled = self.node("Mul", [number, self.constant("two", np.float32(2))], f"{name}.doubled")
        signs = self.node("Sub", [doubled, self.constant("less", np.float32(1))], f"{name}.signs")
        rows = self.constant(f"{name}.rows", np.array([shape[0], -1], np.int64))
        flat = self.node("Reshape", [signs, rows], f"{name}.flat")
        ends = [("zero", 0), (f"{name}.columns", columns), ("axis", 1)]
        cut = self.node(
            "Slice",
            [flat, *(self.constant(key, np.array([value], np.int64)) for key, value in ends)],
            f"{name}.cut",
        )
        whole = self.constant(f"{name}.shape", np.array(shape, np.int64))
        return self.node("Reshape", [cut, whole], name)


def _follows_images(step: Step, model: PackedModel) -> bool:
    before = model.steps[: model.steps.index(step)]
    return not any(earlier.kind in ("flatten", "linear") for earlier in before)


def _need(package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"this needs {package}, which is not installed: pip install 'bclightning[onnx]'"
        ) from error
