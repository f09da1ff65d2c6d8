"""A module's own steps, run on training batches without a trace in the module or the run."""

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.compile import to_uncompiled
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader, Dataset

STATISTICS_STEP = "statistics_step"
"""A method by which a module says itself how a training batch runs through the network."""

_STEPS = ("validation_step", "test_step", "training_step")


@dataclass(frozen=True)
class Way:
    """One way to run a batch through all of a network.

    Attributes:
        name: The method that runs it.
        module: The module whose batch normalizations it passes.
        run: Function of a batch's index and the batch.
    """

    name: str
    module: LightningModule
    run: Callable[[tuple[int, Any]], object]


def ways_to_run(module: LightningModule, trainer: Trainer) -> Iterator[Way]:
    """The ways to run batches through a module, the most faithful first.

    That is the module's ``statistics_step(batch)`` alone, if it has one that is not older than its
    steps: a class that overrides a step also overrides what it inherits. Else the steps, on a copy
    of the module that neither logs nor has anything else in common with it: the validation step,
    since it is what the statistics are for; for a test too, as a test step may write its
    predictions down. Then the training step, which takes any training batch, unless it steps
    optimizers itself; and ``forward``, on the first of what is in a batch.

    Args:
        module: The module.
        trainer: Its trainer.
    """
    own = _own_statistics_step(module)
    if own is not None:
        yield Way(STATISTICS_STEP, module, lambda pair: own(pair[1]))
        return
    names = ["validation_step" if is_overridden("validation_step", module) else "test_step"]
    if module.automatic_optimization:
        names.append("training_step")
    forward = is_overridden("forward", module)
    twin = silent_copy(module, trainer)
    if twin is not None:
        for name in names:
            if is_overridden(name, module):
                yield Way(name, twin, _with_arguments(getattr(twin, name)))
        if forward:
            yield Way("forward", twin, lambda pair: twin(inputs_of(pair[1])))
    if forward:
        # What was not copied, such as a function that holds the module, is reached here.
        yield Way("forward", module, lambda pair: module(inputs_of(pair[1])))


def inputs_of(batch: Any) -> Tensor:
    """What a module's forward takes of a batch, as `torch.optim.swa_utils.update_bn` sees it.

    Raises:
        ValueError: The batch is no tensor and begins with none.
    """
    inputs = batch[0] if isinstance(batch, list | tuple) and batch else batch
    if not isinstance(inputs, Tensor):
        raise ValueError("the batch is no tensor and begins with none")
    return inputs


def silent_copy(module: LightningModule, trainer: Trainer) -> LightningModule | None:
    """A copy of a module, on the same trainer, that logs nothing; `None` if it cannot be copied.

    Weights, buffers, metrics and whatever else a step may change are copied; data sets, loaders and
    optimizers, which it holds but does not own, are not.

    Args:
        module: The module.
        trainer: The copy's trainer.
    """
    shared = {
        id(value): value for inner in module.modules() for value in _not_owned(vars(inner), depth=3)
    }
    try:
        with _CopyingResults():
            twin = copy.deepcopy(module, shared)
    except Exception:  # a lock, an open file, somebody else's __deepcopy__
        return None
    with contextlib.suppress(ValueError):  # it is not compiled
        # A compiled step is bound to the module that was compiled, and would run that one.
        to_uncompiled(twin)
    twin.trainer = trainer
    for inner in twin.modules():
        if isinstance(inner, LightningModule):
            for name in ("log", "log_dict", "manual_backward"):
                setattr(inner, name, _do_nothing)
    return twin


class _CopyingResults(TorchFunctionMode):
    """Let tensors with a gradient's history be copied, such as losses that a step has kept."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def _do_nothing(*args: Any, **kwargs: Any) -> None:
    pass


_NOT_OWNED = (Dataset, DataLoader, LightningDataModule, Logger, Trainer, Callback, Optimizer)


def _not_owned(value: Any, depth: int) -> Iterator[Any]:
    if isinstance(value, _NOT_OWNED):
        yield value
    elif depth and isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _not_owned(part, depth - 1)


def _own_statistics_step(module: LightningModule) -> Callable[[Any], object] | None:
    for place in (module, *type(module).__mro__):
        if STATISTICS_STEP in vars(place):
            return getattr(module, STATISTICS_STEP)
        if any(step in vars(place) for step in _STEPS):
            return None
    return None


def _with_arguments(step: Callable[..., object]) -> Callable[[tuple[int, Any]], object]:
    """A step with the arguments that it has, as Lightning's loops call it."""
    parameters = inspect.signature(step).parameters
    positional = [
        parameter
        for parameter in parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    variable = any(p.kind == p.VAR_POSITIONAL for p in parameters.values())
    indexed = variable or len(positional) > 1 or "batch_idx" in parameters
    # The loader's index has no default where there are several loaders for validation.
    loaders = [p for p in positional[2:3] if p.default is p.empty]

    def run(pair: tuple[int, Any]) -> object:
        index, batch = pair
        return step(batch, *([index] if indexed else []), *(0 for _ in loaders))

    return run
