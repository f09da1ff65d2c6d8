"""An ONNX graph under construction, and the nodes of its preprocessing."""

from typing import Any

import numpy as np
from torch import Tensor

from bclightning.functional.whitening import (
    SMALLEST_DEVIATION,
    SMALLEST_NORM,
    WINDOW,
    gaussian_window,
)
from bclightning.preprocessing import Preprocessing

# Prefix of the names of its constants and results; names of modules cannot contain a slash.
PREPROCESSING = "preprocessing/"


class Graph:
    """The nodes and constants of a graph under construction.

    Args:
        onnx: The package.
    """

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._constant_names: set[str] = set()

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


def add_preprocessing(
    graph: Graph, preprocessing: Preprocessing, sides: tuple[int, ...], pixels: str
) -> str:
    """Add the nodes that prepare raw pixels, and return the name of the prepared images.

    They compute what `Preprocessing.apply` computes.

    Args:
        graph: The graph.
        preprocessing: What is done with the pixels.
        sides: Channels, height and width of an image.
        pixels: Name of the raw pixels, float32 of shape (batch, channels, height, width).
    """
    add = _Preparation(graph, preprocessing.tensors)
    scale = add.constant("scale", np.float32(preprocessing.scale))
    match preprocessing.kind:
        case "centred":
            scaled = add("Div", pixels, scale)
            return add("Sub", scaled, add.tensor("mean"))
        case "whitened":
            flat = add.contrast_normalized(pixels, scale)
            centred = add("Sub", flat, add.tensor("mean"))
            return add.images(add("MatMul", centred, add.tensor("matrix")), sides)
        case "contrast-normalized":
            images = add.images(add.contrast_normalized(pixels, scale), sides)
            return add.locally_normalized(images, sides[0])
        case "standardized":
            centred = add("Sub", add("Div", pixels, scale), add.tensor("mean"))
            return add("Div", centred, add.tensor("deviation"))


class _Preparation:
    """Nodes whose results have the names ``preprocessing/0``, ``preprocessing/1`` and so on."""

    def __init__(self, graph: Graph, tensors: dict[str, Tensor]) -> None:
        self.graph = graph
        self.tensors = tensors
        self._count = 0

    def __call__(self, kind: str, *inputs: str, **settings: Any) -> str:
        name = f"{PREPROCESSING}{self._count}"
        self._count += 1
        return self.graph.node(kind, list(inputs), name, **settings)

    def constant(self, name: str, values: Any) -> str:
        return self.graph.constant(PREPROCESSING + name, values)

    def tensor(self, name: str) -> str:
        return self.constant(name, self.tensors[name].numpy())

    def images(self, flat: str, sides: tuple[int, ...]) -> str:
        """Give flat images their axes; the 0 keeps the size of the batch."""
        return self("Reshape", flat, self.constant("sides", np.array([0, *sides], np.int64)))

    def contrast_normalized(self, pixels: str, scale: str) -> str:
        """See `global_contrast_normalize`; the result is flat."""
        flat = self("Flatten", pixels, axis=1)
        features = self.constant("features", np.array([1], np.int64))
        centred = self("Sub", flat, self("ReduceMean", flat, features, keepdims=1))
        norm = self("ReduceL2", centred, features, keepdims=1)
        single_colour = self("Less", norm, self.constant("least norm", np.float32(SMALLEST_NORM)))
        divisor = self("Where", single_colour, self.constant("one", np.float32(1)), norm)
        return self("Mul", centred, self("Div", scale, divisor))

    def locally_normalized(self, images: str, channels: int) -> str:
        """See `local_contrast_normalize`."""
        centred = self("Sub", images, self._blurred(images, channels))
        variance = self._blurred(self("Mul", centred, centred), channels)
        deviation = self("Sqrt", self("Relu", variance))
        both_sides = self.constant("height and width", np.array([2, 3], np.int64))
        usual = self("ReduceMean", deviation, both_sides, keepdims=1)
        least = self.constant("least deviation", np.float32(SMALLEST_DEVIATION))
        return self("Div", centred, self("Max", deviation, usual, least))

    def _blurred(self, images: str, channels: int) -> str:
        line, half = gaussian_window().numpy(), WINDOW // 2
        for name, shape, pads in (
            ("column", (WINDOW, 1), [half, 0, half, 0]),
            ("row", (1, WINDOW), [0, half, 0, half]),
        ):
            weight = self.constant(name, np.tile(line.reshape(1, 1, *shape), (channels, 1, 1, 1)))
            images = self("Conv", images, weight, kernel_shape=shape, pads=pads, group=channels)
        return images
