"""One sentence out of the parser's many lines, with a suggestion for what is misspelled."""

import importlib
import inspect
import re
from collections.abc import Iterable

from bclightning.errors import nearest

# Lines of jsonargparse that frame an error without saying what it is.
_FRAME = re.compile(
    r"Does not validate|Subtypes:|Errors:|Given value|Parser key|Problem with given class_path"
    r"|Expected a <class 'NoneType'>|Expected a <class 'bool'>|Previously parsed"
)


def explain(message: str, options: Iterable[str]) -> str:
    """Say in one sentence what a message of the parser, or of a class that it built, complains of.

    Args:
        message: The message, of one line or many.
        options: The options that the parser knows, with their dashes.

    Example:
        >>> explain("unrecognized arguments: --trainer.max_epocs 3", ["--trainer.max_epochs"])
        'there is no option --trainer.max_epocs (did you mean --trainer.max_epochs?)'
    """
    if "arguments are required" in message:
        return f"{message}; name a recipe or a file with --config, as --config digits.yaml"
    unknown = re.match(r"(?i)unrecognized arguments: (--[^\s=]+|\S+)", message)
    if unknown:
        word = unknown[1]
        if not word.startswith("-"):
            return f"there is no argument {word!r}; options begin with --"
        return f"there is no option {word}{nearest(word, options)}"
    key = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    class_path = re.search(r"Problem with given class_path '([^']+)'", message)
    causes = []
    for line in message.splitlines():
        line = line.strip().removeprefix("- ")
        if not line or _FRAME.match(line):
            continue
        causes.append(_clear(line, class_path[1] if class_path else ""))
    cause = "; ".join(dict.fromkeys(causes)) or " ".join(message.split())
    return f"--{key}: {cause}" if key and not key.startswith("config") else cause


def _clear(line: str, class_path: str) -> str:
    option = re.fullmatch(r"Option '([^']+)' is not accepted", line)
    if option:
        return f"there is no option {option[1]!r}{nearest(option[1], _arguments(class_path))}"
    expected = re.fullmatch(r"Expected a (.+?)\.? Got value: (.*)", line)
    if expected:
        kind = re.sub(r"<class '([^']+)'>", r"\1", expected[1])
        choices = re.fullmatch(r"typing\.Literal\[(.+)\]", kind)
        wanted = f"one of {choices[1]}" if choices else f"of type {kind}"
        return f"{expected[2]!r} is not {wanted}"
    return re.sub(r"Expected an? <class '([^']+)'>", r"a value of type \1 is expected", line)


def _arguments(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    try:
        return list(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
    except (ImportError, AttributeError, TypeError, ValueError):
        return []
