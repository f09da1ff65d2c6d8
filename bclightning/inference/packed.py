"""The packed model: a network with binary weights as a file of one bit a weight."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bclightning.errors import UserError
from bclightning.functional.packing import pack_signs
from bclightning.inference.checksum import DamagedFileError, read_sealed, write_sealed
from bclightning.inference.graph import PRODUCTS, Step, folded, shapes, trace
from bclightning.preprocessing import Preprocessing

FORMAT = "bclightning-packed"
VERSION = 1

# Whitening matrices are twenty times as large as the networks that they serve, and the same for all
# networks of a data set: they have a file of their own.
_LARGEST_INSIDE = 1_000_000

# Before the names of its tensors; a stroke has no place in the names of modules.
_PREPROCESSING = "preprocessing/"

# What reading a description that makes no sense may raise.
_NONSENSE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)


@dataclass(frozen=True)
class PackedModel:
    """A network at test time, with its binary weights packed.

    Attributes:
        steps: What it computes.
        tensors: Packed signs, scales, shifts, and what stayed real, by the names of the steps.
        image_shape: Channels, height and width of an image.
        class_names: What the classes are called.
        preprocessing: What is done with raw pixels; ``None`` where that is not known, or the file
            that holds its tensors is not at hand.
        about: The run, the method and the errors measured at export, as plain data.
    """

    steps: tuple[Step, ...]
    tensors: dict[str, Tensor]
    image_shape: tuple[int, int, int]
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
            network: A chain of layers; see `bclightning.inference.graph.trace`.
            image_shape: Channels, height and width of an image.
            class_names: What its outputs stand for.
            preprocessing: What was done with raw pixels.
            about: What a reader should know of it, as plain data.

        Raises:
            UserError: The network is no such chain, or has no binary weights, or holds NaN.

        Example:
            >>> from bclightning.models import MLP
            >>> model = PackedModel.of(MLP(64, [8]), (1, 8, 8), [str(d) for d in range(10)])
            >>> model.tensors["hidden.0.linear.bits"].shape
            torch.Size([8, 8])
        """
        traced = trace(network)
        steps = tuple(step for step, _ in traced)
        if not any(step.binary for step in steps):
            raise UserError(
                "there are no binary weights to pack; train with --model.network.regularizer "
                "deterministic or stochastic"
            )
        tensors: dict[str, Tensor] = {}
        for step, module in traced:
            tensors |= _tensors_of(step, module)
        model = cls(
            steps,
            tensors,
            (image_shape[0], image_shape[1], image_shape[2]),
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
        """Write the file, and one beside it for preprocessing that is larger than networks are.

        Returns:
            The files.
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
            own = self._preparing()
            if sum(tensor.nbytes for tensor in own.values()) > _LARGEST_INSIDE:
                beside = _beside(path)
                digest = write_sealed(beside, own, {"format": f"{FORMAT}-preprocessing"})
                content["preprocessing"]["sha256"] = digest
                files.append(beside)
            else:
                tensors |= own
        metadata = {
            "format": FORMAT,
            "format_version": str(VERSION),
            "content": json.dumps(content, separators=(",", ":")),
        }
        write_sealed(path, tensors, metadata)
        return files

    @classmethod
    def read(cls, path: Path | str) -> "PackedModel":
        """Read a file that `write` wrote.

        Raises:
            DamagedFileError: A bit of it has changed, or it is something else.
            UserError: There is no such file, or it is of a later version.
        """
        path = Path(path)
        metadata, tensors = read_sealed(path)
        if metadata.get("format") != FORMAT:
            raise DamagedFileError(f"{path} is no packed model, though a sealed file")
        version = metadata.get("format_version", "")
        if version != str(VERSION):
            raise UserError(
                f"{path} is a packed model of version {version}, and this bclightning reads "
                f"version {VERSION}; install the one that wrote it"
            )
        try:
            content = json.loads(metadata["content"])
            channels, height, width = (_side(side) for side in content["image_shape"])
            found = content.get("preprocessing")
            steps = tuple(Step.parse(entry) for entry in content["steps"])
            model = cls(
                steps,
                {k: v for k, v in tensors.items() if not k.startswith(_PREPROCESSING)},
                (channels, height, width),
                tuple(str(name) for name in content["class_names"]),
                None if found is None else _preprocessing(found, tensors, path),
                dict(content["about"]),
            )
            model._check()
        except _NONSENSE as error:
            raise DamagedFileError(f"{path} does not describe a network: {error}") from error
        return model

    def same_as(self, other: "PackedModel") -> bool:
        """Whether another model has the same steps, tensors and preprocessing, and is called so."""
        mine, theirs = self.tensors | self._preparing(), other.tensors | other._preparing()
        return (
            (self.steps, self.image_shape, self.class_names, self.about)
            == (other.steps, other.image_shape, other.class_names, other.about)
            and mine.keys() == theirs.keys()
            and all(torch.equal(tensor, theirs[name]) for name, tensor in mine.items())
        )

    def _preparing(self) -> dict[str, Tensor]:
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
            name: math.prod(step.weight_shape) if name.endswith((".bits", ".weight")) else shape[0]
            for step in self.steps
            for name, (shape, _) in step.tensors().items()
        }
        return 4 * sum(numbers.values())

    def _check(self) -> None:
        needed = {name: want for step in self.steps for name, want in step.tensors().items()}
        if set(needed) != set(self.tensors):
            raise ValueError("its tensors are not those of its steps")
        for name, (shape, dtype) in needed.items():
            tensor = self.tensors[name]
            if tuple(tensor.shape) != shape or tensor.dtype != dtype:
                raise ValueError(f"{name} is not of shape {shape}")
            if not tensor.isfinite().all():
                raise ValueError(f"{name} holds numbers that are none")
        for text in self.class_names:
            text.encode()  # what cannot be printed is no name
        *_, last = shapes(self.steps, self.image_shape)
        if last != (len(self.class_names),):
            raise ValueError(f"its outputs {last} are not {len(self.class_names)} classes")
        if self.preprocessing is not None:
            self.preprocessing.check(self.image_shape)


def _tensors_of(step: Step, module: nn.Module | None) -> dict[str, Tensor]:
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        scale, shift = folded(module)
        return {f"{step.name}.scale": scale, f"{step.name}.shift": shift}
    if step.kind not in PRODUCTS or module is None:
        return {}
    weight = module.get_parameter("weight").detach().cpu()
    if step.binary:
        try:
            tensors = {f"{step.name}.bits": pack_signs(weight)}
        except ValueError as error:
            raise UserError(f"the layer {step.name} cannot be packed: {error}") from error
    else:
        tensors = {f"{step.name}.weight": _copied(weight)}
    if step.bias:
        tensors[f"{step.name}.bias"] = _copied(module.get_parameter("bias").detach())
    return tensors


def _copied(tensor: Tensor) -> Tensor:
    # Training may go on with the network's own.
    return tensor.to("cpu", torch.float32, copy=True, memory_format=torch.contiguous_format)


def _side(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("a side of its images is no size")
    return value


def _preprocessing(found: Any, tensors: dict[str, Tensor], path: Path) -> Preprocessing | None:
    if "sha256" in found:
        beside = _beside(path)
        if not beside.exists():
            return None
        metadata, tensors = read_sealed(beside)
        if metadata.get("sha256") != found["sha256"]:
            raise ValueError(f"{beside.name} belongs to another model")
    own = {
        name.removeprefix(_PREPROCESSING): tensor
        for name, tensor in tensors.items()
        if name.startswith(_PREPROCESSING)
    }
    if found["kind"] not in ("centred", "whitened", "contrast-normalized"):
        raise ValueError("its preprocessing is of an unknown kind")
    return Preprocessing(found["kind"], float(found["scale"]), own)


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name.removesuffix('.safetensors')}.preprocessing.safetensors")
