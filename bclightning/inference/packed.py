"""The packed model: a network with binary weights as a file of one bit a weight."""

import json
import math
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bclightning.errors import UserError
from bclightning.functional.packing import pack_signs
from bclightning.inference.builder import Traced
from bclightning.inference.checksum import (
    DamagedFileError,
    first_line,
    read_checked,
    shortened,
    write_checked,
)
from bclightning.inference.graph import Step, needed_version, values
from bclightning.inference.limits import check_limits
from bclightning.inference.tracing import folded, trace
from bclightning.inference.values import Value
from bclightning.preprocessing import Preprocessing
from bclightning.storage import expanded

FORMAT = "bclightning-packed"

VERSION = 2
"""The last format version. A chain of layers that version 1 knew is still written as version 1."""

# A whitening matrix is twenty times as large as the networks that use it, and the same for all
# networks of a data set: larger preprocessing has a file of its own.
MAX_INLINE_BYTES = 1_000_000

# Prefix of the names of its tensors; names of modules cannot contain a slash.
_PREPROCESSING = "preprocessing/"

_Content = TypeVar("_Content", dict[str, Any], list[Any])

# What reading an invalid description may raise.
_INVALID = (ValueError, TypeError, AttributeError, RecursionError, OverflowError)


@dataclass(frozen=True)
class PackedModel:
    """A network at test time, with its binary weights packed.

    Attributes:
        steps: The computation, step by step.
        tensors: Packed signs, scales, shifts and real weights, named after their steps.
        image_shape: Channels, height and width of an image; channels and length of a signal, or the
            number of features of a vector.
        class_names: Names of the classes, one for each output.
        preprocessing: What is done with raw pixels; ``None`` if that is unknown, or the file that
            holds its tensors is missing.
        about: The run, the evaluation weights and the errors measured at export, as plain data.
    """

    steps: tuple[Step, ...]
    tensors: dict[str, Tensor]
    image_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        network: nn.Module,
        image_shape: Sequence[int],
        class_names: Sequence[str],
        preprocessing: Preprocessing | None = None,
        about: dict[str, Any] | None = None,
    ) -> "PackedModel":
        """Pack a trained network: signs of its binary layers, batch normalizations folded.

        Args:
            network: A network of one input; see `bclightning.inference.tracing.trace`.
            image_shape: Channels, height and width of an image.
            class_names: Names of the classes, one for each output.
            preprocessing: What was done with raw pixels in training.
            about: What a reader of the file should know, as plain data.

        Raises:
            UserError: The network computes what no step can, has no binary weights, or contains
                NaN or infinity.

        Example:
            >>> from bclightning.models import MLP
            >>> model = PackedModel.of(MLP(64, [8]), (1, 8, 8), [str(d) for d in range(10)])
            >>> model.tensors["hidden.0.linear.bits"].shape
            torch.Size([8, 8])
        """
        traced = trace(network, image_shape)
        steps = tuple(each.step for each in traced)
        if not any(step.binary for step in steps):
            raise UserError(
                "there are no binary weights to pack; train with --model.network.regularizer "
                "deterministic or stochastic"
            )
        tensors: dict[str, Tensor] = {}
        for each in traced:
            tensors |= _tensors_of(each)
        model = cls(
            steps,
            tensors,
            tuple(image_shape),
            tuple(class_names),
            preprocessing,
            about or {},
        )
        try:
            model._check()
        except ValueError as error:
            raise UserError(f"this network cannot be packed: {error}") from error
        return model

    def write(self, path: Path) -> list[Path]:
        """Write the file, and one beside it for large preprocessing, as a whitening matrix.

        Returns:
            The paths of the files that were written.
        """
        tensors = dict(self.tensors)
        files = [path]
        content: dict[str, Any] = {
            "steps": [step.as_json() for step in self.steps],
            "image_shape": self.image_shape,
            "class_names": self.class_names,
            "about": self.about,
        }
        if self.preprocessing is not None:
            content["preprocessing"] = self.preprocessing.as_json()
            own = self._preprocessing_tensors()
            if sum(tensor.nbytes for tensor in own.values()) > MAX_INLINE_BYTES:
                beside = _beside(path)
                digest = write_checked(beside, own, {"format": f"{FORMAT}-preprocessing"})
                content["preprocessing"]["sha256"] = digest
                files.append(beside)
            else:
                tensors |= own
        metadata = {
            "format": FORMAT,
            "format_version": str(needed_version(self.steps, values(self.steps, self.image_shape))),
            "content": json.dumps(content, separators=(",", ":")),
        }
        write_checked(path, tensors, metadata)
        return files

    @classmethod
    def read(cls, path: Path | str) -> "PackedModel":
        """Read a file that `write` wrote.

        Raises:
            DamagedFileError: The file does not match its checksum, or is not a packed model.
            UserError: There is no such file, or it has another format version.
        """
        path = expanded(path)
        metadata, tensors = read_checked(path)
        if metadata.get("format") != FORMAT:
            raise DamagedFileError(f"{path} is not a packed model, though its checksum matches")
        version = metadata.get("format_version", "")
        if version not in map(str, range(1, VERSION + 1)):
            raise UserError(
                f"{path} has format version {shortened(version)}, and this bclightning reads "
                f"versions up to {VERSION}; install the bclightning that wrote it"
            )
        try:
            content = _of_type(dict, "the description", json.loads(metadata["content"]))
            found = content.get("preprocessing")
            entries = _of_type(list, "steps", content["steps"])
            steps = tuple(Step.parse(entry) for entry in entries)
            model = cls(
                steps,
                {k: v for k, v in tensors.items() if not k.startswith(_PREPROCESSING)},
                _image_shape(content["image_shape"]),
                _class_names(content["class_names"]),
                None if found is None else _preprocessing(found, tensors, path),
                _of_type(dict, "about", content["about"]),
            )
            model._check()
            needed = needed_version(steps, values(steps, model.image_shape))
            if int(version) < needed:
                raise ValueError(
                    f"its format version is {version}, and its steps need version {needed}"
                )
        except KeyError as error:
            raise DamagedFileError(
                f"{path} describes no valid network: {first_line(error)} is missing"
            ) from error
        except _INVALID as error:
            raise DamagedFileError(
                f"{path} describes no valid network: {first_line(error)}"
            ) from error
        return model

    def same_as(self, other: "PackedModel") -> bool:
        """Whether another model has the same steps, tensors, preprocessing, names and `about`."""
        mine = self.tensors | self._preprocessing_tensors()
        theirs = other.tensors | other._preprocessing_tensors()
        return (
            (self.steps, self.image_shape, self.class_names, self.about)
            == (other.steps, other.image_shape, other.class_names, other.about)
            and mine.keys() == theirs.keys()
            and all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
        )

    def _preprocessing_tensors(self) -> dict[str, Tensor]:
        """The tensors of the preprocessing, as they are named in a file."""
        known = {} if self.preprocessing is None else self.preprocessing.tensors
        return {_PREPROCESSING + name: tensor for name, tensor in known.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors of the network."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def float_bytes(self) -> int:
        """Bytes of the same network with every number in 32 bits."""
        # By name, since a layer that is used twice is stored once.
        numbers = {
            f"{step.name}.{end}": math.prod(shape)
            for step in self.steps
            for end, shape in step.shapes().items()
        }
        return 4 * sum(numbers.values())

    def _check(self) -> None:
        needed = {name: want for step in self.steps for name, want in step.tensors().items()}
        if set(needed) != set(self.tensors):
            missing, unexpected = set(needed) - set(self.tensors), set(self.tensors) - set(needed)
            raise ValueError(
                f"missing tensors: {reprlib.repr(sorted(missing))}; "
                f"unexpected tensors: {reprlib.repr(sorted(unexpected))}"
            )
        for name, (shape, dtype) in needed.items():
            tensor = self.tensors[name]
            if tuple(tensor.shape) != shape or tensor.dtype != dtype:
                raise ValueError(
                    f"{name!r} must be a {dtype} tensor of shape {shape}, "
                    f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
                )
            if not tensor.isfinite().all():
                raise ValueError(f"{name!r} contains NaN or infinity")
        for text in self.class_names:
            text.encode()  # a lone surrogate, which JSON can hold, could not be printed
        output = check_limits(self.steps, self.image_shape)[-1]
        if output != Value((1, len(self.class_names))):
            raise ValueError(
                f"{len(self.class_names)} class names need an output of shape "
                f"({len(self.class_names)},), got {output}"
            )
        if self.preprocessing is not None:
            self.preprocessing.check(self.image_shape)


def _tensors_of(traced: Traced) -> dict[str, Tensor]:
    step, constants = traced.step, traced.constants
    if step.kind == "affine":
        constants = dict(zip(("scale", "shift"), folded(**constants), strict=True))
    tensors = {}
    for end in step.shapes():
        tensor = constants[end]
        if end == "bits":
            try:
                packed = pack_signs(tensor.detach().cpu())
            except ValueError as error:
                raise UserError(f"the layer {step.name} cannot be packed: {error}") from error
        else:
            packed = _copied(tensor.detach())
        tensors[f"{step.name}.{end}"] = packed
    return tensors


def _copied(tensor: Tensor) -> Tensor:
    # A copy, since training may change the network's own tensors later.
    return tensor.to("cpu", torch.float32, copy=True, memory_format=torch.contiguous_format)


def _image_shape(value: Any) -> tuple[int, ...]:
    sides = value if isinstance(value, list) else []
    if not 1 <= len(sides) <= 3 or not all(type(side) is int and side >= 1 for side in sides):
        raise ValueError(
            f"image_shape must be one to three positive integers, got {reprlib.repr(value)}"
        )
    return tuple(sides)


_JSON_TYPES: dict[type, str] = {dict: "a JSON object", list: "a list"}


def _of_type(expected: type[_Content], what: str, value: Any) -> _Content:
    if not isinstance(value, expected):
        raise ValueError(f"{what} must be {_JSON_TYPES[expected]}, got {reprlib.repr(value)}")
    return value


def _class_names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"class_names must be a list of strings, got {reprlib.repr(value)}")
    return tuple(value)


def _preprocessing(found: Any, tensors: dict[str, Tensor], path: Path) -> Preprocessing | None:
    if "sha256" in _of_type(dict, "preprocessing", found):
        beside = _beside(path)
        if not beside.exists():
            return None
        metadata, tensors = read_checked(beside)
        if metadata.get("sha256") != found["sha256"]:
            raise ValueError(f"{beside.name} is the preprocessing of another model")
    own = {
        name.removeprefix(_PREPROCESSING): tensor
        for name, tensor in tensors.items()
        if name.startswith(_PREPROCESSING)
    }
    return Preprocessing.parse(found, own)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name.removesuffix('.safetensors')}.preprocessing.safetensors")
