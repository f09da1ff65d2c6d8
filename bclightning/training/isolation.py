"""Extra passes over training data that leave no trace in the run."""

import contextlib
import copy
import random
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DataLoader

# Objects of a loader, its data set and its transforms that are looked through for generators.
MAX_OBJECTS = 10_000


@contextlib.contextmanager
def same_random_state() -> Iterator[None]:
    """Restore torch's, NumPy's and Python's random state when the block ends.

    Example:
        >>> before = torch.get_rng_state()
        >>> with same_random_state():
        ...     _ = torch.rand(1)
        >>> torch.equal(torch.get_rng_state(), before)
        True
    """
    # A GPU that nothing has used yet has no state, and must not be occupied for this.
    cuda: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    with isolate_rng(include_cuda=cuda):
        yield


@contextlib.contextmanager
def without_loggers(trainer: Trainer) -> Iterator[None]:
    """Give a trainer loggers that write nothing until the block ends."""
    loggers = trainer.loggers
    trainer.loggers = [DummyLogger() for _ in loggers]
    try:
        yield
    finally:
        trainer.loggers = loggers


@contextlib.contextmanager
def same_generators(loader: Any) -> Iterator[None]:
    """Restore the random generators that a loader, its data set and transforms hold.

    Args:
        loader: A loader; see `MAX_OBJECTS`.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> loader = DataLoader(range(9), shuffle=True, generator=generator)
        >>> with same_generators(loader):
        ...     first = [int(number) for number in loader]
        >>> first == [int(number) for number in loader]
        True
    """
    restore = list(_restorers(loader))
    try:
        yield
    finally:
        for put_back in restore:
            put_back()


def _restorers(root: Any) -> Iterator[Callable[[], object]]:
    queue = [root]
    seen: set[int] = set()
    while queue and len(seen) < MAX_OBJECTS:
        value = queue.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        match value:
            case torch.Generator():
                yield partial(value.set_state, value.get_state())
            case np.random.Generator():
                yield partial(setattr, value.bit_generator, "state", value.bit_generator.state)
            case np.random.RandomState():
                yield partial(value.set_state, value.get_state())
            case random.Random():
                yield partial(value.setstate, value.getstate())
            case list() | tuple() if len(value) <= MAX_OBJECTS:
                # Numbers and names are most of what long lists hold.
                queue.extend(part for part in value if not isinstance(part, str | int | float))
            case dict() if len(value) <= MAX_OBJECTS:
                queue.extend(value.values())
            case type() | ModuleType() | Tensor():
                pass
            case _:
                queue.extend(getattr(value, "__dict__", {}).values())


def independent_loader(loader: Any) -> Any:
    """A loader of the same batches that has no part in an epoch that is under way.

    Args:
        loader: Loader, or a list or dictionary of loaders, as a trainer's ``train_dataloader``.
    """
    if isinstance(loader, list | tuple | dict):
        parts = loader.items() if isinstance(loader, dict) else enumerate(loader)
        copies = {key: _independent_copy(part) for key, part in parts}
        whole = copies if isinstance(loader, dict) else list(copies.values())
        return _Combined(CombinedLoader(whole, "max_size_cycle"))
    return _independent_copy(loader)


class _Combined:
    """The batches of a combined loader without their indices."""

    def __init__(self, loader: CombinedLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        for batch, _, _ in self.loader:
            yield batch


def _independent_copy(loader: Any) -> Any:
    if not isinstance(loader, DataLoader):
        return loader
    # What draws the order is copied with its state; the data are not. A loader with persistent
    # workers has one iterator, and to restart that would end the epoch.
    drawn = ("sampler", "batch_sampler", "generator")
    memo = {id(value): value for name, value in vars(loader).items() if name not in drawn}
    try:
        loader = copy.deepcopy(loader, memo)
    except Exception:  # somebody else's sampler; its generators are restored
        loader = copy.copy(loader)
    loader._iterator = None
    return loader
