"""The arguments of classes, read from their source: nothing is imported, so nobody waits for torch.

What the parser of options learns of a class by importing it is all in the text of its module: the
names of its arguments, their types and defaults, and what its docstring says of them.
"""

import ast
import contextlib
import functools
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any, Final

# Of a module's text; more is not a module that somebody wrote.
MAX_BYTES = 1_000_000

# Names that are looked up one after another, such as what a package takes from its module.
MAX_STEPS = 20

REQUIRED: Final = object()
"""The default of an argument that has none."""

UNKNOWN: Final = object()
"""The default of an argument that is not written as a plain value."""

# The classes that recipes name or mean, by the group of options that their arguments are in.
USUAL_CLASSES: Final = {
    "model": "bclightning.training.Classifier",
    "model.network": "bclightning.models.MLP",
    "data": "bclightning.data.MNIST",
}

_PLAIN = ("int", "float", "bool", "None", "str")


@dataclass(frozen=True)
class Argument:
    """An argument of a class.

    Attributes:
        name: Its name.
        types: The types that it may have, of ``int``, ``float``, ``bool``, ``str`` and ``None``.
        choices: Values that it may have, where its type is a ``Literal``.
        other: Whether it may have a type that is none of these.
        default: Its default, `REQUIRED`, or `UNKNOWN`.
        help: What the docstring says of it.
    """

    name: str
    types: tuple[str, ...]
    choices: tuple[Any, ...]
    other: bool
    default: Any
    help: str

    def fault(self, text: str) -> str:
        """What is wrong with a value, as it is typed; empty where nothing is seen to be.

        Example:
            >>> epochs = Argument("epochs", ("int", "None"), (), False, None, "")
            >>> epochs.fault("ten"), epochs.fault("10")
            ("'ten' is not of type int", '')
        """
        if self.other or "str" in self.types or text in {str(choice) for choice in self.choices}:
            return ""
        if "None" in self.types and text.lower() in ("null", "~", "none", ""):
            return ""
        if "bool" in self.types and text.lower() in ("true", "false", "yes", "no", "on", "off"):
            return ""
        with contextlib.suppress(ValueError):
            if "float" in self.types or ("int" in self.types and float(text).is_integer()):
                float(text)
                return ""
        kinds = [kind for kind in self.types if kind != "None"]
        if self.choices:
            listed = ", ".join(repr(choice) for choice in self.choices)
            return f"{text!r} is not one of {listed}"
        return f"{text!r} is not of type {' or '.join(kinds)}" if kinds else ""


def arguments_of(path: str) -> list[Argument] | None:
    """The arguments of a class.

    Args:
        path: Its import path.

    Returns:
        The arguments in their order; ``None`` where the source does not tell: there is no such
        class, it takes any keyword, or its arguments come from elsewhere.

    Example:
        >>> [argument.name for argument in arguments_of("bclightning.models.MLP")][:3]
        ['in_features', 'hidden', 'classes']
        >>> arguments_of("no.such.Class") is None
        True
    """
    found = _find(path)
    return None if found is None else _of_class(*found, MAX_STEPS)


def summary_of(path: str) -> str:
    """The first sentence of a class's docstring; empty where it is not found.

    Example:
        >>> summary_of("bclightning.models.MLP")
        'A multilayer perceptron on images as unordered vectors of pixels (section 3.1).'
    """
    found = _find(path)
    if found is None or not isinstance(found[1], ast.ClassDef):
        return ""
    return (ast.get_docstring(found[1]) or "").partition("\n\n")[0].replace("`", "")


def constant_of(path: str) -> Any:
    """The value of a constant that is written as a plain value; ``None`` where it is not found.

    Example:
        >>> constant_of("bclightning.vocabulary.VAL_ERROR")
        'val/error'
    """
    match _find(path):
        case _, ast.Assign(value=value):
            with contextlib.suppress(ValueError):
                return ast.literal_eval(value)
    return None


def public_classes(package: str) -> list[str]:
    """The names of classes that a package exports, without their base classes.

    Example:
        >>> public_classes("bclightning.data")
        ['CIFAR10', 'MNIST', 'SVHN', 'Arrays', 'Digits', 'ImageFolder']
    """
    module = _module(package)
    for statement in [] if module is None else module.tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=names):
                exported = list(ast.literal_eval(names))
                kinds = ((name, _find(f"{package}.{name}")) for name in exported)
                return [
                    name
                    for name, found in kinds
                    if found is not None and isinstance(found[1], ast.ClassDef)
                    if not name.endswith("DataModule")
                ]
    return []


@dataclass(frozen=True)
class _Module:
    name: str
    package: str
    tree: ast.Module


def _find(path: str, steps: int = MAX_STEPS) -> tuple[_Module, ast.stmt] | None:
    """The statement that defines what an import path names, and the module that it stands in."""
    module_name, _, name = path.rpartition(".")
    module = _module(module_name) if module_name and steps else None
    return None if module is None else _find_in(module, name, steps - 1)


def _find_in(module: _Module, name: str, steps: int) -> tuple[_Module, ast.stmt] | None:
    for statement in _statements(module.tree.body):
        match statement:
            case ast.ClassDef(name=defined):
                if defined == name:
                    return module, statement
            case ast.Assign(targets=[ast.Name(id=defined)]):
                if defined == name:
                    return module, statement
            case ast.AnnAssign(target=ast.Name(id=defined)):
                if defined == name:
                    return module, statement
            case ast.ImportFrom(names=names):
                for alias in names:
                    if (alias.asname or alias.name) == name:
                        source = _source(module, statement)
                        return _find(f"{source}.{alias.name}", steps) if steps else None
    return None


def _source(module: _Module, statement: ast.ImportFrom) -> str:
    if not statement.level:
        return statement.module or ""
    parents = module.package.split(".")
    kept = parents[: len(parents) - statement.level + 1]
    return ".".join([*kept, statement.module] if statement.module else kept)


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        match statement:
            case ast.If(body=inner, orelse=rest):
                yield from _statements(inner)
                yield from _statements(rest)
            case ast.Try(body=inner):
                yield from _statements(inner)


def _of_class(module: _Module, found: ast.stmt, steps: int) -> list[Argument] | None:
    if not isinstance(found, ast.ClassDef) or not steps:
        return None
    for statement in found.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return _of_function(module, found, statement)
    if any(_is_dataclass(decorator) for decorator in found.decorator_list):
        return _of_dataclass(module, found)
    for base in found.bases:
        # A base that the module defines or imports by name.
        inherited = _find_in(module, ast.unparse(base), MAX_STEPS)
        return None if inherited is None else _of_class(*inherited, steps - 1)
    return None


def _is_dataclass(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return ast.unparse(called).rpartition(".")[2] == "dataclass"


def _of_function(
    module: _Module, owner: ast.ClassDef, function: ast.FunctionDef
) -> list[Argument] | None:
    given = function.args
    if given.kwarg is not None:
        return None
    texts = _descriptions(owner) | _descriptions(function)
    ordinary = [*given.posonlyargs, *given.args][1:]
    missing = len(ordinary) - len(given.defaults)
    pairs: list[tuple[ast.arg, ast.expr | None]] = [
        *zip(
            ordinary, [*[None] * missing, *given.defaults][-len(ordinary) or None :], strict=False
        ),
        *zip(given.kwonlyargs, given.kw_defaults, strict=True),
    ]
    return [
        _argument(module, argument.arg, argument.annotation, default, texts)
        for argument, default in pairs
    ]


def _of_dataclass(module: _Module, found: ast.ClassDef) -> list[Argument]:
    texts = _descriptions(found)
    return [
        _argument(module, statement.target.id, statement.annotation, statement.value, texts)
        for statement in found.body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    ]


def _argument(
    module: _Module,
    name: str,
    annotation: ast.expr | None,
    default: ast.expr | None,
    texts: dict[str, str],
) -> Argument:
    types: list[str] = []
    choices: list[Any] = []
    other = annotation is None
    for kind in [] if annotation is None else _alternatives(module, annotation, MAX_STEPS):
        if isinstance(kind, tuple):
            choices += kind
        elif kind in _PLAIN:
            types.append(kind)
        else:
            other = True
    return Argument(
        name,
        tuple(dict.fromkeys(types)),
        tuple(dict.fromkeys(choices)),
        other,
        _default(module, default),
        texts.get(name, ""),
    )


def _alternatives(module: _Module, hint: ast.expr, steps: int) -> list[Any]:
    """The types of a union, each by its name, or as a tuple of a literal's values."""
    match hint:
        case ast.Constant(value=None):
            return ["None"]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return [*_alternatives(module, left, steps), *_alternatives(module, right, steps)]
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return [*_alternatives(module, inner, steps), "None"]
        case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=inners)):
            return [kind for inner in inners for kind in _alternatives(module, inner, steps)]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            with contextlib.suppress(ValueError):
                values = ast.literal_eval(inner)
                return [values if isinstance(values, tuple) else (values,)]
        case ast.Name(id=name) if name in _PLAIN:
            return [name]
        case ast.Name(id=name) if steps:
            found = _find_in(module, name, steps)
            match found:
                case where, ast.Assign(value=value):
                    return _alternatives(where, value, steps - 1)
    return ["other"]


def _default(module: _Module, default: ast.expr | None) -> Any:
    if default is None:
        return REQUIRED
    with contextlib.suppress(ValueError):
        return ast.literal_eval(default)
    match default:
        case ast.Name(id=name):
            match _find_in(module, name, MAX_STEPS):
                case _, ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value):
                    with contextlib.suppress(ValueError):
                        return ast.literal_eval(value)
        case ast.Call(keywords=[ast.keyword(arg="default_factory", value=ast.Name(id="list"))]):
            return []
    return UNKNOWN


def _descriptions(owner: ast.ClassDef | ast.FunctionDef) -> dict[str, str]:
    """What the section ``Args`` of a docstring says of each argument, in one line each."""
    _, _, section = (ast.get_docstring(owner) or "").partition("\nArgs:\n")
    texts: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if line and not line.startswith(" "):
            # The next section.
            break
        if line.startswith("    ") and line[4:5].strip():
            name, _, line = line.strip().partition(":")
        texts[name] = f"{texts.get(name, '')} {line}"
    return {name: " ".join(text.replace("`", "").split()) for name, text in texts.items()}


def _module(name: str) -> _Module | None:
    spec = _spec(name)
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    with contextlib.suppress(OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        path = Path(spec.origin)
        if path.is_file() and path.stat().st_size <= MAX_BYTES:
            package = name if spec.submodule_search_locations else name.rpartition(".")[0]
            return _Module(name, package, _parsed(path, path.stat().st_mtime_ns))
    return None


@functools.lru_cache(maxsize=256)
def _parsed(path: Path, changed: int) -> ast.Module:
    """The module in a file, which is parsed again once it has changed."""
    return ast.parse(path.read_bytes())


def _spec(name: str) -> ModuleSpec | None:
    """Where a module lies; its packages are looked through, and not imported."""
    top, *parts = name.split(".")
    # A module in the current folder comes before installed ones, as Python has it.
    spec = PathFinder.find_spec(top, [os.getcwd()])
    if spec is None or spec.origin is None:
        with contextlib.suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(top)
    for part in parts:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    return spec
