"""One sentence out of the parser's many lines, with a suggestion for a misspelled option."""

import contextlib
import inspect
import re
import sys
import traceback
from collections.abc import Iterable, Iterator

from lightning.fabric.utilities.exceptions import MisconfigurationException

from bclightning.errors import UserError, nearest

# Lines of jsonargparse that frame an error without saying what it is.
_FRAME = re.compile(
    r"Does not validate|Subtypes:|Errors:|Given value|Parser key|Problem with given class_path"
    r"|Expected a <class 'NoneType'>|Expected a <class 'bool'>|Previously parsed"
    r"|Expected a path but .* either not accessible"
)


def format_parser_error(message: str, options: Iterable[str]) -> str:
    """Say in one sentence what is wrong, from a message of the parser or of a class that it built.

    Args:
        message: Message of one line or many.
        options: Options that the parser knows, with their dashes.

    Example:
        >>> message = "unrecognized arguments: --trainer.max_epocs 3"
        >>> format_parser_error(message, ["--trainer.max_epochs"])
        'there is no option --trainer.max_epocs (did you mean --trainer.max_epochs?)'
    """
    missing = re.search(r"arguments are required: (.*)", message)
    if missing:
        names = ", ".join(f"--{name}" for name in re.findall(r"[\w.]+", missing[1]))
        if "Problem with given class_path" in message:
            inner = ".".join([*re.findall(r'Parser key "([^"]+)"', message), missing[1]])
            names = f"--{inner}"
        return f"{names} is missing; name a recipe or a file with --config, as --config digits.yaml"
    unknown = re.match(r"(?i)unrecognized arguments: (--[^\s=]+|\S+)", message)
    if unknown:
        word = unknown[1]
        if not word.startswith("-"):
            return f"there is no argument {word!r}; options begin with --"
        return f"there is no option {word}{nearest(word, options)}"
    group = re.search(r"Group '([^']+)' does not accept option '([^']+)'", message)
    if group:
        name = f"--{group[1]}.{group[2]}"
        return f"there is no option {name}{nearest(name, options)}"
    key = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    class_paths = re.findall(r"Problem with given class_path '([^']+)'", message)
    not_accepted = re.search(r"Option '([^']+)' is not accepted", message)
    if not_accepted:
        prefix = f"--{key}." if key else ""
        known = [f"{prefix}{name}" for name in _arguments(class_paths[-1] if class_paths else "")]
        name = f"{prefix}{not_accepted[1]}"
        return f"there is no option {name}{nearest(name, known)}"
    given = re.search(r"Given value: (\S+)$", message)
    causes = []
    for line in message.splitlines():
        line = line.strip().removeprefix("- ")
        if line and not _FRAME.match(line):
            causes.append(_clear(line, given[1] if given else None))
    cause = "; ".join(dict.fromkeys(causes)) or " ".join(message.split())
    return f"--{key}: {cause}" if key and not key.startswith("config") else cause


@contextlib.contextmanager
def lightning_errors() -> Iterator[None]:
    """Say in one sentence what Lightning refuses, of which it notices some in training only.

    Raises:
        UserError: Lightning's own code refused a setting; the message is Lightning's.

    Example:
        >>> try:
        ...     with lightning_errors():
        ...         raise MisconfigurationException("no metric   of that name")
        ... except UserError as error:
        ...     print(error)
        no metric of that name
    """
    try:
        yield
    except (MisconfigurationException, ValueError, RuntimeError, ModuleNotFoundError) as error:
        if isinstance(error, MisconfigurationException) or _raised_by_lightning(error):
            raise UserError(" ".join(str(error).split())) from error
        raise


def _raised_by_lightning(error: BaseException) -> bool:
    """Whether Lightning's own code raised an error, and nothing that it called."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get("__name__", "")).startswith("lightning.")


def _clear(line: str, given: str | None) -> str:
    expected = re.fullmatch(r"Expected an? (.+?)\.?(?: Got value: (.*))?", line)
    if not expected:
        return line
    kind = re.sub(r"<class '([^']+)'>", r"\1", expected[1])
    value = expected[2] or given
    if value is None:
        return f"a value of type {kind} is expected"
    choices = re.fullmatch(r"typing\.Literal\[(.+)\]", kind)
    return f"{value!r} is not {f'one of {choices[1]}' if choices else f'of type {kind}'}"


def _arguments(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    try:
        # Imported by the parser, if it is a class; the name may also be any text of the message.
        return list(inspect.signature(getattr(sys.modules[module], name)).parameters)
    except (KeyError, AttributeError, TypeError, ValueError):
        return []
