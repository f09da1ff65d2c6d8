"""What a sweep reads from files: its recipe, once, and whatever the recipe and the options name."""

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bclightning.errors import MachineError, UserError
from bclightning.runs.recipes import parse_config, read_config, resolve_recipe
from bclightning.storage import expanded
from bclightning.yaml_files import read_text

if TYPE_CHECKING:
    from bclightning.runs.allowed_code import AllowedCode

# A network, say, may have a configuration file of its own.
_NESTED = (".yaml", ".yml", ".json")


def read_recipe(name: str) -> tuple[str, dict[str, Any]]:
    """A recipe's text and content, read once: the file may be edited while the sweep runs.

    Args:
        name: Path of the recipe, or its bare name.

    Raises:
        UserError: There is no such recipe, or it cannot be read.
    """
    path = resolve_recipe(name)
    text = read_text(path)
    return text, parse_config(text, path)


def with_nested_files(content: dict[str, Any], allowed: "AllowedCode | None") -> dict[str, Any]:
    """A configuration that holds what it names other configuration files for.

    Args:
        content: Content of a recipe.
        allowed: What it may name; all if ``None``.

    Returns:
        The same configuration without those files, wherever the content of one can take its place.
    """
    from bclightning.runs.config import load_limited

    for keys in list(_nested_files(content)):
        changed = _with(content, keys, read_config(Path(_at(content, keys))))
        try:
            # A class may also want the path itself.
            inner = load_limited([changed], allowed).plain()
            if inner == load_limited([content], allowed).plain():
                content = changed
        except UserError:
            continue
    return content


def checksums(contents: Sequence[Any]) -> dict[str, str]:
    """Checksums of all files that configurations name, as networks to begin from.

    Args:
        contents: Configurations, or parts of some.

    Returns:
        The checksums by the files' paths, as they are written.
    """
    return {name: checksum for name in sorted(set(_files(contents))) if (checksum := _digest(name))}


def check_unchanged(files: Mapping[str, str]) -> None:
    """Check that files are what they were when the sweep was prepared.

    Args:
        files: What `checksums` returned.

    Raises:
        MachineError: One has changed.
    """
    for name, checksum in files.items():
        if _digest(name) != checksum:
            raise MachineError(
                f"{name}, which the sweep's runs begin from, has changed since the sweep was "
                "started; restore it"
            )


def _digest(name: str) -> str:
    """Checksum of a file's content; empty if there is no such file."""
    path = expanded(name)
    try:
        state = path.stat()
    except OSError:
        return ""
    return _digest_of(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache
def _digest_of(path: Path, size: int, modified: int) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError:
        return ""


def _files(value: Any) -> Iterator[str]:
    match value:
        case str() if _is_file(value):
            yield value
            if value.endswith(_NESTED):
                yield from _files(_nested_content(expanded(value)))
        case Mapping():
            for inner in value.values():
                yield from _files(inner)
        case list() | tuple():
            for inner in value:
                yield from _files(inner)


def _nested_content(path: Path) -> dict[str, Any]:
    try:
        return read_config(path)
    except UserError:
        return {}


def _is_file(name: str) -> bool:
    try:
        return bool(name) and expanded(name).is_file()
    except (OSError, ValueError):
        # A text that can be no path.
        return False


def _nested_files(value: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where in a configuration the path of another configuration file stands."""
    match value:
        case str() if keys and value.endswith(_NESTED) and _is_file(value):
            yield keys
        case Mapping():
            for key, inner in value.items():
                yield from _nested_files(inner, (*keys, key))


def _at(content: Any, keys: tuple[str, ...]) -> Any:
    return functools.reduce(lambda value, key: value[key], keys, content)


def _with(content: Any, keys: tuple[str, ...], value: Any) -> Any:
    if not keys:
        return value
    first, *rest = keys
    return {**content, first: _with(content[first], tuple(rest), value)}
