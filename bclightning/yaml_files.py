"""The package's one way of reading YAML: plain data of a bounded size, or one sentence."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bclightning.errors import UserError

# A configuration has a few hundred values, and a few levels.
MAX_BYTES = 256 * 1024
MAX_VALUES = 20_000
MAX_DEPTH = 50
# Text that is itself YAML, with text in it.
MAX_TEXTS = 3

_KINDS = ("str", "int", "float", "bool", "null", "map", "seq")
_PLAIN = tuple(f"tag:yaml.org,2002:{kind}" for kind in _KINDS)

if TYPE_CHECKING:
    _Parser = yaml.SafeLoader
else:
    _Parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlExtentError(UserError):
    """YAML that is larger or deeper than any configuration, or no plain data."""


class _Loader(_Parser):
    """PyYAML's safe loader, but a date is text, as it is in JSON."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own attribute)
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in _Parser.yaml_implicit_resolvers.items()
    }


def read_yaml(path: Path) -> Any:
    """Read a YAML file.

    Args:
        path: The file.

    Returns:
        What it contains: mappings, lists, text, numbers, true, false and null.

    Raises:
        UserError: It cannot be read, is no YAML, or is larger or deeper than any configuration.
    """
    text = read_text(path)
    try:
        return parse_yaml(text)
    except UserError as error:
        raise UserError(f"{path} is not a readable YAML file: {error}") from error


def read_text(path: Path) -> str:
    """Read the text of a YAML file, up to a little more than `parse_yaml` takes.

    Args:
        path: The file.

    Raises:
        UserError: It cannot be read, or is no text.
    """
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable YAML file: {error}") from error


def parse_yaml(text: str) -> Any:
    """Parse YAML, see `read_yaml`.

    Raises:
        UserError: It is no YAML, or is larger or deeper than any configuration.

    Example:
        >>> parse_yaml("trainer: {max_epochs: 3}")
        {'trainer': {'max_epochs': 3}}
        >>> parse_yaml("a: &a [*a]")
        Traceback (most recent call last):
        bclightning.yaml_files.YamlExtentError: the anchor &a contains itself
    """
    return _parse(text, 0)


def _parse(text: str, level: int) -> Any:
    if len(text) > MAX_BYTES:
        raise YamlExtentError(f"it has more than {MAX_BYTES // 1024} KiB")
    try:
        _check_extent(text)
        content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(" ".join(str(error).split())) from error
    except (ValueError, TypeError, OverflowError) as error:
        # A number that is none, or of more digits than Python converts; a list as a key.
        raise UserError(f"it has a value that cannot be read: {error}") from error
    if content != text:
        _check_texts(content, level + 1)
    return content


def _check_texts(content: Any, level: int) -> None:
    """Check the text in a value, which the parser of options may read as YAML in its turn."""
    if level > MAX_TEXTS:
        raise YamlExtentError(f"it is nested more than {MAX_TEXTS} texts deep")
    match content:
        case dict():
            for value in content.values():
                _check_texts(value, level)
        case list():
            for value in content:
                _check_texts(value, level)
        case str() if "*" in content or content.count("[") + content.count("{") > MAX_DEPTH:
            try:
                _parse(content, level)
            except YamlExtentError:
                raise
            except UserError:
                # Text, and no YAML.
                pass


def _check_extent(text: str) -> None:
    """Count values as if each alias were written out, before anything is made of them.

    Raises:
        YamlExtentError: There are too many, they are nested too deeply, or are no plain data.
    """
    sizes: dict[str | None, int | None] = {}
    parents: list[tuple[str | None, int]] = []
    count = 0
    for event in yaml.parse(text, Loader=_Loader):
        tag = getattr(event, "tag", None)
        if tag is not None and tag not in _PLAIN:
            raise YamlExtentError(f"the tag {tag!r} is not plain data")
        match event:
            case yaml.AliasEvent(anchor=anchor):
                size = sizes.get(anchor, 0)
                if size is None:
                    raise YamlExtentError(f"the anchor &{anchor} contains itself")
                count += size
            case yaml.CollectionStartEvent(anchor=anchor):
                parents.append((anchor, count))
                count += 1
                if anchor is not None:
                    sizes[anchor] = None
            case yaml.CollectionEndEvent():
                anchor, before = parents.pop()
                if anchor is not None:
                    sizes[anchor] = count - before
            case yaml.ScalarEvent(anchor=anchor):
                count += 1
                if anchor is not None:
                    sizes[anchor] = 1
        if count > MAX_VALUES:
            raise YamlExtentError(
                f"it has more than {MAX_VALUES:,} values, with aliases written out"
            )
        if len(parents) > MAX_DEPTH:
            raise YamlExtentError(f"it is nested more than {MAX_DEPTH} levels deep")
