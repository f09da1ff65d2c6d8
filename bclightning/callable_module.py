"""Packages whose names are verbs and that can be called: ``bclightning.compare(runs)``."""

import importlib
import sys
from types import ModuleType
from typing import Any


def make_callable(package: str, function: str) -> None:
    """Let a package be called, which calls one of its functions.

    ``bclightning.sweep`` is both the package of everything about sweeps and, for a user, what runs
    one. Python binds a package to its name in the parent as soon as any of its modules is imported,
    so a function of that name would be there or not by the order of imports. The function's module
    is imported at the first call.

    Args:
        package: Name of the package, as its ``__name__``.
        function: Where the function is, as ``"package.module:function"``.

    Example:
        >>> import bclightning.compare
        >>> callable(bclightning.compare)
        True
    """
    home, _, name = function.partition(":")

    class CallablePackage(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return getattr(importlib.import_module(home), name)(*args, **kwargs)

    sys.modules[package].__class__ = CallablePackage
