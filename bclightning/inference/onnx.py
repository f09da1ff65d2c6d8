"""A packed model as an ONNX graph with its preprocessing, for runtimes outside Python."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bclightning.errors import UserError
from bclightning.inference.checksum import DamagedFileError, first_line
from bclightning.inference.onnx_graph import PREPROCESSING, Graph, add_preprocessing
from bclightning.inference.onnx_steps import add_steps
from bclightning.inference.packed import MAX_INLINE_BYTES, PackedModel
from bclightning.storage import replacing

# The first with BitwiseAnd.
OPSET = 18

# The intermediate representation of that opset; older runtimes cannot read a later one.
IR_VERSION = 8

# The axes of the input, by the number of them after the batch.
_LAYOUTS = {
    1: "batch, features",
    2: "batch, channels, length",
    3: "batch, channels, height, width",
}

# What onnx itself leaves in the graph's own file.
_MIN_DATA_BYTES = 1024

# Entries of the metadata that name the second file and say its checksum.
_DATA_FILE, _DATA_CHECKSUM = "data_file", "data_sha256"


def as_onnx(model: PackedModel, pixels: torch.dtype = torch.uint8) -> bytes:
    """The graph of a packed model, serialized: raw pixels in, scores out.

    Its input is ``pixels``: images as the data set's files have them, of shape (batch, channels,
    height, width) with any batch. Its output is ``scores``, of shape (batch, classes). The metadata
    say dtype, layout and value range of the input, the names of the classes and the model's
    `about`.

    A model without preprocessing has the input ``images`` instead: prepared images, float32. For
    the graph of the network alone: ``as_onnx(dataclasses.replace(model, preprocessing=None))``.

    Args:
        model: The packed model.
        pixels: Dtype of the input; float32 for data whose pixels are not whole numbers of 8 bits.

    Raises:
        UserError: The package onnx is not installed.
        ValueError: The dtype is neither uint8 nor float32.
    """
    made = _made(model, pixels)
    _need("onnx").checker.check_model(made)
    content: bytes = made.SerializeToString()
    return content


def write_onnx(model: PackedModel, path: Path, pixels: torch.dtype = torch.uint8) -> list[Path]:
    """Write the graph of `as_onnx`, and a file beside it for a large whitening matrix.

    The second file holds ONNX external data. Its name contains its checksum, so that a graph never
    meets the matrix of another one: ``model.onnx.1a2b3c4d.data``.

    Args:
        model: The packed model.
        path: The file to write.
        pixels: Dtype of the input; see `as_onnx`.

    Returns:
        The paths of the files that were written.
    """
    onnx = _need("onnx")
    made = _made(model, pixels)
    own = [entry for entry in made.graph.initializer if _may_lie_beside(entry)]
    content = b"".join(entry.raw_data for entry in own)
    files = [path]
    if len(content) > MAX_INLINE_BYTES:
        digest = hashlib.sha256(content).hexdigest()
        beside = path.with_name(f"{path.name}.{digest[:8]}.data")
        offset = 0
        for entry in own:
            length = len(entry.raw_data)
            onnx.external_data_helper.set_external_data(entry, beside.name, offset, length)
            entry.ClearField("raw_data")
            offset += length
        onnx.helper.set_model_props(
            made, _said(made) | {_DATA_FILE: beside.name, _DATA_CHECKSUM: digest}
        )
        with replacing(beside) as file:
            file.write(content)
        files.append(beside)
    with replacing(path) as file:
        file.write(made.SerializeToString())
    onnx.checker.check_model(str(path))
    return files


def _may_lie_beside(constant: Any) -> bool:
    # Not the small ones, as shapes, which a runtime wants to know before it opens a second file.
    return constant.name.startswith(PREPROCESSING) and len(constant.raw_data) > _MIN_DATA_BYTES


def add_metadata(path: Path, entries: dict[str, Any]) -> None:
    """Add entries to the metadata of a graph in a file; the graph stays as it is.

    Args:
        path: The graph's file.
        entries: What to add, by name.

    Raises:
        UserError: The file does not hold afterwards what was written.
    """
    onnx = _need("onnx")
    made = onnx.load(path, load_external_data=False)
    texts = {key: str(value) for key, value in entries.items()}
    onnx.helper.set_model_props(made, _said(made) | texts)
    content = made.SerializeToString()
    with replacing(path) as file:
        file.write(content)
    if path.read_bytes() != content:
        raise UserError(f"{path.name} does not contain what was written to it; check the disk")


def onnx_scores(path: Path, images: Tensor, batch_size: int = 1000) -> Tensor:
    """The scores that onnxruntime computes, of shape (batch, classes).

    Args:
        path: A file that `write_onnx` wrote, or that holds the result of `as_onnx`.
        images: What the graph takes, of shape (batch, channels, height, width).
        batch_size: Images that are classified together.

    Raises:
        DamagedFileError: The file holds no graph, or its second file is missing or another one.
        UserError: The package onnxruntime is not installed.
        ValueError: The images are of another shape or dtype than the graph takes.
    """
    session = _session(path)
    (wanted,) = session.get_inputs()
    parts = []
    for part in torch.split(images, batch_size):
        try:
            (scores,) = session.run(["scores"], {wanted.name: part.numpy()})
        except Exception as error:  # onnxruntime's errors have no class in common
            raise ValueError(
                f"onnxruntime cannot take images of shape {tuple(part.shape)} and {part.dtype}: "
                f"{first_line(error)}"
            ) from error
        parts.append(torch.from_numpy(scores))
    return torch.cat(parts)


def input_description(model: PackedModel, pixels: torch.dtype = torch.uint8) -> str:
    """What goes into the graph of `as_onnx`, in one line.

    Args:
        model: The packed model.
        pixels: Dtype of the input; see `as_onnx`.

    Example:
        >>> from bclightning.models import MLP
        >>> from bclightning.preprocessing import Preprocessing
        >>> centre = Preprocessing("centred", 255.0, {"mean": torch.zeros(1, 2, 2)})
        >>> model = PackedModel.of(MLP(4, [3], 2), (1, 2, 2), ["no", "yes"], centre)
        >>> input_description(model)
        'pixels: raw pixels from 0 to 255, uint8 (batch, 1, 2, 2), grey'
    """
    said = _input(model, pixels)
    shape = ", ".join(map(str, json.loads(said["input_shape"])))
    channels = f", {said['input_channels']}" if "input_channels" in said else ""
    return f"{said['input']}, {said['input_dtype']} ({shape}){channels}"


def _made(model: PackedModel, pixels: torch.dtype) -> Any:
    """The graph with its metadata, as onnx's ``ModelProto``."""
    onnx = _need("onnx")
    types = {torch.uint8: onnx.TensorProto.UINT8, torch.float32: onnx.TensorProto.FLOAT}
    if pixels not in types:
        raise ValueError(f"the graph's pixels are uint8 or float32, not {pixels}")
    graph = Graph(onnx)
    if model.preprocessing is None:
        name, taken, last = "images", torch.float32, "images"
    else:
        name, taken, last = "pixels", pixels, "pixels"
        if taken != torch.float32:
            last = graph.node("Cast", [name], f"{PREPROCESSING}float", to=onnx.TensorProto.FLOAT)
        last = add_preprocessing(graph, model.preprocessing, model.image_shape, last)
    last = add_steps(graph, model, last)
    graph.node("Identity", [last], "scores")
    value = onnx.helper.make_tensor_value_info
    classes = len(model.class_names)
    made = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "bclightning",
            [value(name, types[taken], ["batch", *model.image_shape])],
            [value("scores", onnx.TensorProto.FLOAT, ["batch", classes])],
            graph.constants,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="bclightning",
    )
    about = {key: str(value) for key, value in model.about.items()}
    onnx.helper.set_model_props(made, about | _input(model, pixels))
    return made


def _input(model: PackedModel, pixels: torch.dtype) -> dict[str, str]:
    """What the metadata say of the graph's input, and of what comes out."""
    said = {
        "input_layout": _LAYOUTS[len(model.image_shape)],
        "input_shape": json.dumps(["batch", *model.image_shape]),
        "class_names": json.dumps(model.class_names),
    }
    channels = {1: "grey", 3: "RGB"}.get(model.image_shape[0])
    if channels is not None and len(model.image_shape) == 3:
        said["input_channels"] = channels
    if model.preprocessing is None:
        return said | {"input": "images: prepared images", "input_dtype": "float32"}
    if math.isinf(model.preprocessing.max_pixel):
        return said | {
            "input": "pixels: raw values",
            "input_dtype": str(pixels).removeprefix("torch."),
            "preprocessing": json.dumps(model.preprocessing.as_json() | {"in_graph": True}),
        }
    range_ = f"0 to {model.preprocessing.max_pixel:g}"
    return said | {
        "input": f"pixels: raw pixels from {range_}",
        "input_dtype": str(pixels).removeprefix("torch."),
        "input_range": range_,
        "preprocessing": json.dumps(model.preprocessing.as_json() | {"in_graph": True}),
    }


def _said(made: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in made.metadata_props}


def _session(path: Path) -> Any:
    """A session of onnxruntime, after the second file's checksum was verified."""
    onnx, runtime = _need("onnx"), _need("onnxruntime")
    try:
        said = _said(onnx.load(path, load_external_data=False))
        if _DATA_FILE in said:
            # The name alone, since the file says it: what is beside the graph, and nothing else.
            _check_data(path.with_name(Path(said[_DATA_FILE]).name), said, path)
        return runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except UserError:
        raise
    except Exception as error:  # onnxruntime's errors have no class in common
        raise DamagedFileError(
            f"{path} cannot be loaded by onnxruntime: {first_line(error)}"
        ) from error


def _check_data(beside: Path, said: dict[str, str], path: Path) -> None:
    if not beside.exists():
        raise DamagedFileError(f"{path} needs {beside.name} beside it, which is missing; copy both")
    if hashlib.sha256(beside.read_bytes()).hexdigest() != said.get(_DATA_CHECKSUM):
        raise DamagedFileError(
            f"{beside} is damaged, or is the preprocessing of another model than {path.name}; "
            "export the run again, or copy both files again"
        )


def _need(package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"this needs {package}, which is not installed: pip install 'bclightning[onnx]'"
        ) from error
