"""Whether what a checkpoint is to hold can be loaded again without executing anything."""

import io
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from bclightning.errors import UserError

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.Tensor, nn.Parameter)

# Keys and indices that lead to a value.
_Path = tuple[Any, ...]


class LoadableValues:
    """Refuse, before they are saved, values that `torch.load(weights_only=True)` would refuse.

    Values of plain types cost no more than a look at their type; any other is saved and loaded in
    memory, the first time that its place holds one of that type.

    Example:
        >>> import numpy
        >>> values = LoadableValues()
        >>> values.require({"state_dict": {"weight": torch.zeros(2)}, "epoch": 3})
        >>> values.require({"callbacks": {"Own": {"best": numpy.float64(0.5)}}})
        Traceback (most recent call last):
        bclightning.errors.UserError: the checkpoint could not be loaded again: \
callbacks['Own']['best'] is of the type numpy.float64; keep tensors, numbers, text, lists and \
dictionaries of them there, such as float(...)
    """

    def __init__(self) -> None:
        self._loaded: set[tuple[_Path, type]] = set()

    def require(self, checkpoint: dict[str, Any]) -> None:
        """Check all values of a checkpoint.

        Raises:
            UserError: One could not be loaded again; the sentence names it.
        """
        for path, value in _unusual(checkpoint, (), set()):
            kind = type(value)
            if (path, kind) in self._loaded:
                continue
            if not _can_be_loaded(value):
                first, *others = path
                place = f"{first}{''.join(f'[{key!r}]' for key in others)}"
                raise UserError(
                    f"the checkpoint could not be loaded again: {place} is of the type "
                    f"{kind.__module__}.{kind.__qualname__}; keep tensors, numbers, text, lists "
                    "and dictionaries of them there, such as float(...)"
                )
            self._loaded.add((path, kind))


def _unusual(value: Any, path: _Path, seen: set[int]) -> Iterator[tuple[_Path, Any]]:
    kind = type(value)
    if kind in _PLAIN:
        return
    items: Iterable[tuple[Any, Any]]
    if kind is dict or kind is OrderedDict:
        items = value.items()
    elif kind is list or kind is tuple or kind is set:
        items = enumerate(value)
    else:
        yield path, value
        return
    if id(value) in seen:
        return
    seen.add(id(value))
    for key, inner in items:
        yield from _unusual(key, (*path, key), seen)
        yield from _unusual(inner, (*path, key), seen)


def _can_be_loaded(value: Any) -> bool:
    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception:  # whatever an object of any class raises
        return False
    return True
