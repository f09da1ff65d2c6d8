"""Whether plain data, as JSON gives it, has the types that annotations promise."""

import math
import types
from collections.abc import Callable
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

# Whole numbers and measures beyond this are of no machine, and overflow where they are counted.
MAX_NUMBER = 2**63

# Containers in one another, at most: fewer than what Python can write and copy again.
MAX_DEPTH = 32

# Characters of a value in a sentence, at most.
MAX_SHOWN = 60

AnyFloat = Annotated[float, "any"]
"""A number that may be NaN or infinite, as a metric may be."""

Check = Callable[[Any, str], None]
"""Takes a value and what it is called in a sentence."""


class WrongTypeError(Exception):
    """Data of another type; the message names the field, what it must be and what it is."""


def checker(hint: Any, or_null: str = "") -> Check:
    """A function that raises `WrongTypeError` where a value is not of a type.

    Args:
        hint: The type: ``str``, ``int``, ``float`` (finite), ``bool``, `AnyFloat`, ``Any``, a
            ``Literal``, a list, a dictionary with names as keys, a ``TypedDict`` (more keys may be
            there), or a union of one of those with ``None``. Of ``Annotated[A, B]`` it is B.
        or_null: What a sentence adds to the type, where a union with ``None`` is checked.

    Example:
        >>> check = checker(dict[str, list[int]])
        >>> check({"sizes": [1, 2]}, "split")
        >>> check({"sizes": [1, "2"]}, "split")
        Traceback (most recent call last):
        bclightning.runs.json_types.WrongTypeError: split['sizes'][1] must be a whole number, \
and it is '2'
    """
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _optional(hint)
    if hint is AnyFloat:
        return _scalar(f"a number{or_null}", _is_number)
    if origin is Annotated:
        return checker(get_args(hint)[1], or_null)
    if origin is NotRequired:
        return checker(get_args(hint)[0])
    if origin is Literal:
        return _literal(get_args(hint), or_null)
    if origin is list:
        return _list(checker(get_args(hint)[0]), or_null)
    if origin is dict:
        return _dictionary(checker(get_args(hint)[1]), or_null)
    if is_typeddict(hint):
        return _named_keys(hint, or_null)
    if hint is Any:
        return _any
    words, accepts = _SCALARS[hint]
    return _scalar(words + or_null, accepts)


def _wrong(name: str, wanted: str, value: Any) -> WrongTypeError:
    shown = repr(value)
    if len(shown) > MAX_SHOWN:
        shown = f"{shown[:MAX_SHOWN]}..."
    return WrongTypeError(f"{name} must be {wanted}, and it is {shown}")


def _scalar(wanted: str, accepts: Callable[[Any], bool]) -> Check:
    def check(value: Any, name: str) -> None:
        if not accepts(value):
            raise _wrong(name, wanted, value)

    return check


def _is_number(value: Any) -> bool:
    return type(value) is float or _is_whole(value)


def _is_whole(value: Any) -> bool:
    # A truth value is an int to Python, and nowhere else.
    return type(value) is int and abs(value) < MAX_NUMBER


def _is_finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value) and abs(value) < MAX_NUMBER


def _any(value: Any, name: str, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise WrongTypeError(f"{name} is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _any(item, name, depth + 1)


_SCALARS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    str: ("text", lambda value: type(value) is str),
    int: ("a whole number", _is_whole),
    bool: ("true or false", lambda value: type(value) is bool),
    float: ("a finite number", _is_finite),
}


def _literal(words: tuple[Any, ...], or_null: str) -> Check:
    wanted = f"one of {', '.join(map(str, words))}{or_null}"
    return _scalar(wanted, lambda value: type(value) is str and value in words)


def _optional(hint: Any) -> Check:
    (part,) = (part for part in get_args(hint) if part is not types.NoneType)
    inner = checker(part, " or null")

    def check(value: Any, name: str) -> None:
        if value is not None:
            inner(value, name)

    return check


def _list(each: Check, or_null: str) -> Check:
    def check(value: Any, name: str) -> None:
        if type(value) is not list:
            raise _wrong(name, f"a list{or_null}", value)
        for place, item in enumerate(value):
            each(item, f"{name}[{place}]")

    return check


def _dictionary(each: Check, or_null: str) -> Check:
    def check(value: Any, name: str) -> None:
        if type(value) is not dict:
            raise _wrong(name, f"an object{or_null}", value)
        for key, item in value.items():
            each(item, f"{name}[{key!r}]")

    return check


def _named_keys(hint: Any, or_null: str) -> Check:
    checks = {
        key: checker(entry) for key, entry in get_type_hints(hint, include_extras=True).items()
    }
    needed = [key for key in checks if key in hint.__required_keys__]

    def check(value: Any, name: str) -> None:
        if type(value) is not dict:
            raise _wrong(name, f"an object{or_null}", value)
        for key in needed:
            if key not in value:
                raise WrongTypeError(f"{name}.{key} is missing")
        for key, item in value.items():
            if key in checks:
                checks[key](item, f"{name}.{key}")
            else:
                _any(item, name)

    return check
