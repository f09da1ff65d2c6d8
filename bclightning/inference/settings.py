"""What the settings of a step may be: each a check of a value that comes from a file."""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

SIZE_BITS = 24
"""No size in a useful network reaches this power of two, and products stay far from overflow."""

SIZE_LIMIT = 2**SIZE_BITS

MAX_AXES = 8
"""Axes of a value, the batch's among them."""

# The largest float32 is 3.4e38; what comes near it overflows in the next step.
_LARGEST_NUMBER = 1e30

BATCH = -1
"""The size that stands in a shape for the axis of the batch, whatever the batch is."""


class Setting(Protocol):
    """What a setting may be."""

    def check(self, key: str, value: Any) -> None:
        """Raise a ValueError that names the setting if a value is not allowed."""


def _whole(value: Any, least: int, limit: int = SIZE_LIMIT) -> bool:
    return type(value) is int and least <= value < limit


def _refusal(key: str, what: str, value: Any) -> ValueError:
    return ValueError(f"{key} must be {what}, got {reprlib.repr(value)}")


def _range(least: int) -> str:
    return f"in [{least}, 2**{SIZE_BITS})"


@dataclass(frozen=True)
class Integer:
    """A whole number from `least`."""

    least: int = 1

    def check(self, key: str, value: Any) -> None:
        """See `Setting`."""
        if not _whole(value, self.least):
            raise _refusal(key, f"an integer {_range(self.least)}", value)


@dataclass(frozen=True)
class Integers:
    """A list of `count` whole numbers from `least`."""

    count: int
    least: int = 1

    def check(self, key: str, value: Any) -> None:
        """See `Setting`."""
        if not isinstance(value, list) or len(value) != self.count or not all(
            _whole(number, self.least) for number in value
        ):  # fmt: skip
            what = {1: "a list of one integer", 2: "a pair of integers"}
            named = what.get(self.count, f"a list of {self.count} integers")
            raise _refusal(key, f"{named} {_range(self.least)}", value)


@dataclass(frozen=True)
class Shape:
    """The sizes of some axes; with `batch`, one of them may be `BATCH`."""

    batch: bool = False

    def check(self, key: str, value: Any) -> None:
        """See `Setting`."""
        sizes = value if isinstance(value, list) else [None]
        known = [size for size in sizes if not (self.batch and type(size) is int and size == BATCH)]
        if (
            len(sizes) > MAX_AXES
            or len(sizes) - len(known) > 1
            or not all(_whole(size, 1) for size in known)
        ):
            more = f", one of which may be {BATCH} for the batch" if self.batch else ""
            raise _refusal(key, f"a list of at most {MAX_AXES} sizes {_range(1)}{more}", value)


@dataclass(frozen=True)
class Axis:
    """An axis, counted from 0."""

    def check(self, key: str, value: Any) -> None:
        """See `Setting`."""
        if not _whole(value, 0, MAX_AXES):
            raise _refusal(key, f"an integer in [0, {MAX_AXES})", value)


@dataclass(frozen=True)
class Axes:
    """Different axes, counted from 0; at least one of them."""

    def check(self, key: str, value: Any) -> None:
        """See `Setting`."""
        axes = value if isinstance(value, list) else []
        if (
            not 1 <= len(axes) <= MAX_AXES
            or not all(_whole(axis, 0, MAX_AXES) for axis in axes)
            or len(set(axes)) != len(axes)
        ):
            raise _refusal(key, f"a list of different integers in [0, {MAX_AXES})", value)


@dataclass(frozen=True)
class Pads:
    """What is added before and after each axis, as a list of pairs."""

    def check(self, key: str, value: Any) -> None:
        """See `Setting`."""
        pairs = value if isinstance(value, list) and len(value) <= MAX_AXES else [None]
        for pair in pairs:
            if not isinstance(pair, list) or len(pair) != 2:
                break
            if not all(_whole(number, 0) for number in pair):
                break
        else:
            return
        raise _refusal(key, f"a list of at most {MAX_AXES} pairs of integers {_range(0)}", value)


@dataclass(frozen=True)
class Number:
    """A finite number from `least`."""

    least: float = -_LARGEST_NUMBER

    def check(self, key: str, value: Any) -> None:
        """See `Setting`."""
        if (
            type(value) not in (int, float)
            or not self.least <= value <= _LARGEST_NUMBER
            or math.isnan(value)
        ):
            what = f"a number in [{self.least:g}, {_LARGEST_NUMBER:g}]"
            raise _refusal(key, what, value)


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def check(self, key: str, value: Any) -> None:
        """See `Setting`."""
        if not isinstance(value, bool):
            raise _refusal(key, "true or false", value)


@dataclass(frozen=True)
class OneOf:
    """One of some words."""

    words: tuple[str, ...]

    def check(self, key: str, value: Any) -> None:
        """See `Setting`."""
        if value not in self.words:
            raise _refusal(key, " or ".join(map(repr, self.words)), value)


def check_settings(expected: Mapping[str, Setting], given: Mapping[str, Any]) -> None:
    """Check that all settings are there, and no others, and that each is what it may be.

    Args:
        expected: What each setting may be, by name.
        given: The settings, by name.

    Raises:
        ValueError: They are not; the message names the setting.

    Example:
        >>> check_settings({"axis": Axis()}, {"axis": -1})
        Traceback (most recent call last):
        ValueError: axis must be an integer in [0, 8), got -1
    """
    if set(given) != set(expected):
        raise ValueError(f"expected the settings {list(expected)}, got {reprlib.repr(list(given))}")
    for key, setting in expected.items():
        setting.check(key, given[key])
