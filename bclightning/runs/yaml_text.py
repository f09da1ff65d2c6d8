"""YAML from elsewhere: what is small stays small, and whatever is wrong with it is one error."""

from typing import Any

import yaml

# A definition or a configuration has some hundred values.
MAX_VALUES = 100_000


def load_yaml(text: str) -> Any:
    """Read a YAML document of plain values.

    Args:
        text: The document.

    Raises:
        yaml.YAMLError: It is malformed, contains itself, is nested too deeply, or would become huge
            by what it repeats.

    Example:
        >>> load_yaml("a: [1, 2]")
        {'a': [1, 2]}
        >>> load_yaml("a: &a [*a]")
        Traceback (most recent call last):
        yaml.error.YAMLError: it contains itself
    """
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _count(node, {})
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError:
        raise
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        # A date with a thirteenth month, say.
        raise yaml.YAMLError(str(error)) from error


def _count(node: yaml.Node, counted: dict[int, int | None]) -> int:
    """The number of values in a node when each of its aliases is written out."""
    if id(node) in counted:
        count = counted[id(node)]
        if count is None:
            raise yaml.YAMLError("it contains itself")
        return count
    counted[id(node)] = None
    count = 1
    if isinstance(node, yaml.SequenceNode):
        count += sum(_count(inner, counted) for inner in node.value)
    elif isinstance(node, yaml.MappingNode):
        count += sum(_count(inner, counted) for pair in node.value for inner in pair)
    if count > MAX_VALUES:
        raise yaml.YAMLError(f"it has more than {MAX_VALUES} values")
    counted[id(node)] = count
    return count
