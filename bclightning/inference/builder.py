"""The steps of a packed model under construction, from the nodes of an exported graph."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from bclightning.inference.graph import Step, value_after
from bclightning.inference.settings import BATCH
from bclightning.inference.values import Value
from bclightning.nn import BinaryLayer


class UnsupportedError(Exception):
    """What a network does and no step can; the message is a part of a sentence."""


@dataclass(frozen=True)
class Traced:
    """A step and what its tensors are made of.

    Attributes:
        step: The step.
        constants: Tensors of the network, and numbers, by the ends of their names in a file; of an
            ``affine`` step, the arguments of `bclightning.inference.tracing.folded`.
    """

    step: Step
    constants: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """A value that depends on the image, by its number."""

    number: int


BATCH_SIZE = object()
"""What stands for the size of the batch, or a multiple of it, in the arguments of a node."""


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that is the same for all images: a parameter, a buffer or what was made of them.

    Attributes:
        tensor: The tensor.
        name: Its name in the network, or that of the node that made it.
    """

    tensor: Tensor
    name: str


class Builder:
    """Adds one step after the other, and knows the shape of each value.

    Args:
        network: The network.
        image: Channels, height and width of an image.
        batch: Images in the batch that the network was exported with.
    """

    def __init__(self, network: nn.Module, image: Sequence[int], batch: int) -> None:
        self.network = network
        self.traced: list[Traced] = []
        self.values = [Value((1, *image))]
        # What each node makes: a value, a constant, or several of them in a list.
        self.known: dict[fx.Node, Any] = {}
        self._batch = batch
        self._names: dict[str, Any] = {}
        self._operands: dict[Any, Made] = {}
        self._first_names = {id(module): name for name, module in network.named_modules()}
        self._latent = {
            id(module.weight): name
            for name, module in network.named_modules()
            if isinstance(module, BinaryLayer)
        }

    def of(self, made: Any) -> Value:
        """The sizes of a value.

        Raises:
            UnsupportedError: It is a constant, and cannot be one in this place.
        """
        if not isinstance(made, Made):
            raise UnsupportedError("it takes a constant where only a value of the image can be")
        return self.values[made.number]

    def resolved(self, argument: Any) -> Any:
        """An argument of a node, with what the nodes in it make."""
        if isinstance(argument, fx.Node):
            return self.known.get(argument, BATCH_SIZE)
        if isinstance(argument, list | tuple):
            return [self.resolved(entry) for entry in argument]
        return argument

    def add(
        self,
        kind: str,
        *inputs: Any,
        name: str = "",
        constants: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Made:
        """Add a step and return its value.

        Args:
            kind: The kind of the step.
            inputs: What it takes: values, constants or numbers.
            name: The name that it gets, unless another step has it.
            constants: What its tensors are made of; see `Traced`.
            settings: Its settings.

        Raises:
            UnsupportedError: The step cannot take these inputs.
        """
        known = {key: entry for key, entry in (constants or {}).items() if entry is not None}
        taken = tuple(self.operand(argument).number for argument in inputs)
        if name:
            ids = {k: id(v) if isinstance(v, Tensor) else v for k, v in known.items()}
            name = self._unique(name, (kind, settings, ids))
        step = Step(
            kind,
            name,
            settings,
            binary="bits" in known,
            bias="bias" in known and kind != "affine",
            inputs=None if taken == (len(self.values) - 1,) else taken,
        )
        try:
            # What a file says is checked when it is read, and so it is here.
            self.values.append(value_after(Step.parse(step.as_json()), self.values))
        except ValueError as error:
            raise UnsupportedError(str(error)) from error
        self.traced.append(Traced(step, known))
        return Made(len(self.values) - 1)

    def finished(self, result: Made) -> list[Traced]:
        """The steps that a result needs, numbered without the others."""
        needed = {0, result.number}
        for number in range(result.number, 0, -1):
            if number in needed:
                needed.update(self.traced[number - 1].step.taken(number))
        order = sorted(needed)
        new = {number: place for place, number in enumerate(order)}
        kept = []
        for number in order[1:]:
            traced = self.traced[number - 1]
            taken = tuple(new[before] for before in traced.step.taken(number))
            inputs = None if taken == (new[number] - 1,) else taken
            kept.append(replace(traced, step=replace(traced.step, inputs=inputs)))
        return kept

    def _unique(self, name: str, what: Any) -> str:
        """The name, or one that is like it, which no other step has."""
        wanted, count = name, 1
        while self._names.setdefault(name, what) != what:
            count += 1
            name = f"{wanted}.{count}"
        return name

    def operand(self, argument: Any) -> Made:
        """The value that an argument is; constants and numbers become steps without inputs.

        Raises:
            UnsupportedError: It is none of these, or a latent weight.
        """
        if isinstance(argument, Made):
            return argument
        if isinstance(argument, Constant):
            self.refuse_latent(argument)
            key: Any = id(argument.tensor)
            if key not in self._operands:
                self._operands[key] = self._parameter(argument)
            return self._operands[key]
        if argument is BATCH_SIZE:
            raise UnsupportedError("it computes with the size of the batch")
        if isinstance(argument, bool) or not isinstance(argument, int | float):
            raise UnsupportedError(f"it cannot take {argument!r}")
        key = float(argument)
        if key not in self._operands:
            self._operands[key] = self.add("scalar", value=key)
        return self._operands[key]

    def _parameter(self, constant: Constant) -> Made:
        if constant.tensor.is_complex():
            raise UnsupportedError("it computes with complex numbers")
        if constant.tensor.dim() == 0:
            return self.operand(constant.tensor.item())
        return self.add(
            "parameter",
            name=constant.name,
            constants={"value": constant.tensor},
            shape=list(constant.tensor.shape),
        )

    def refuse_latent(self, constant: Constant) -> None:
        """Raise an error if a constant is the latent weight of a binary layer.

        Raises:
            UnsupportedError: It is; only the layer itself may compute with its weight.
        """
        owner = self._latent.get(id(constant.tensor))
        if owner is not None:
            raise UnsupportedError(
                f"it computes with the latent weight of {owner or 'the network itself'}, which "
                "only the layer itself may"
            )

    def weight(self, node: fx.Node, constant: Any) -> dict[str, Any]:
        """A product's weight, as ``bits`` if it is that of the binary layer that computes it.

        Raises:
            UnsupportedError: The weight depends on the image, or is another layer's latent one.
        """
        if not isinstance(constant, Constant):
            raise UnsupportedError("its weight depends on the image")
        module = self.network.get_submodule(place(node))
        if isinstance(module, BinaryLayer) and module.weight is constant.tensor:
            return {"bits": constant.tensor}
        self.refuse_latent(constant)
        return {"weight": constant.tensor}

    def name(self, node: fx.Node) -> str:
        """The name of a step with tensors: the module's, or the node's in the network itself."""
        # A layer that is used in two places has one name, so that it is stored once.
        return self._first_names[id(self.network.get_submodule(place(node)))] or node.name

    def shape_of(self, node: fx.Node) -> list[int]:
        """The shape of a node's result, with `BATCH` for the axis of the batch."""
        return [
            BATCH if isinstance(size, torch.SymInt) else int(size)
            for size in node.meta["val"].shape
        ]

    def check_shape(self, node: fx.Node, made: Made) -> None:
        """Check that a value has the sizes that torch says, whatever was made of the settings.

        Raises:
            UnsupportedError: It has others, as where a pooling rounds up.
        """
        value = self.of(made)
        sizes = list(value.sizes)
        if value.batch is not None:
            sizes[value.batch] *= self._batch
        if sizes != [int(size) for size in node.meta["val"].shape]:
            raise UnsupportedError(f"its settings give another shape than {value}")


def place(node: fx.Node) -> str:
    """The name of the module in which a node computes; empty for the network itself."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = stack[-1][0] if stack else ""
    # A module's second call has its number behind its name.
    return "" if path.startswith("_empty_nn_module_stack") else re.sub(r"@\d+$", "", path)
