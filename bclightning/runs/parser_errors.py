"""One sentence out of the parser's many lines, with a suggestion for a misspelled option."""

import contextlib
import inspect
import re
import sys
import traceback
from collections.abc import Iterable, Iterator

from lightning.fabric.utilities.exceptions import MisconfigurationException

from bclightning.errors import UserError
from bclightning.runs.hints import (
    not_a_data_set,
    not_a_precision,
    suggest_option,
    unknown_option,
)
from bclightning.runs.signatures import USUAL_CLASSES, arguments_of, public_classes

# Lines of jsonargparse that frame an error without saying what it is.
_FRAME = re.compile(
    r"Does not validate|Subtypes:|Errors:|Given value|Parser key|Problem with given class_path"
    r"|Expected a <class 'NoneType'>|Expected a <class 'bool'>|Previously parsed"
    r"|Expected a path but .* either not accessible"
    r"|Not a valid subclass of|Subclass types expect one of|a class path \(str\)|a dict with"
)

# A text where a list is expected, by itself or among other types.
_NO_LIST = re.compile(
    r"Subtypes: \[list\[(?:str|int|float)\][^\n]*\s+Errors:\s+- Expected a <class 'list'>.*?"
    r"Given value: ([^\n]+)",
    re.DOTALL,
)
_NO_CLASS = re.compile(r"Expected a dot import path string: (\S+)")

# Lightning's words for an accelerator that this machine does not have.
_NO_GPU = re.compile(r"No supported gpu backend found|(CUDA|MPS)Accelerator` can not run")
_NO_GPU_SAID = "torch finds no GPU here; leave out --trainer.accelerator, or give cpu"


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
    if _NO_GPU.search(message):
        return _NO_GPU_SAID
    valueless = re.match(r"argument (\S+): expected one argument", message)
    if valueless:
        return f"{valueless[1]} needs a value"
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
        return f"there is no option {word}{suggest_option(word, [*options, *_usual_options()])}"
    group = re.search(r"Group '([^']+)' does not accept option '([^']+)'", message)
    if group:
        name = f"--{group[1]}.{group[2]}"
        return f"there is no option {name}{suggest_option(name, [*options, *_usual_options()])}"
    key = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    class_paths = re.findall(r"Problem with given class_path '([^']+)'", message)
    not_accepted = re.search(r"Option '([^']+)' is not accepted", message)
    if not_accepted:
        prefix = f"--{key}." if key else ""
        known = [f"{prefix}{name}" for name in _arguments(class_paths[-1] if class_paths else "")]
        name = f"{prefix}{not_accepted[1]}"
        return unknown_option(name, known, class_paths[-1].rpartition(".")[2] if known else "")
    if key == "trainer.precision":
        choices = dict.fromkeys(re.findall(r"'([\w-]+)'", message))
        given = re.search(r"Given value: (\S+)$", message)
        return f"--{key}: {not_a_precision(given[1] if given else '', choices)}"
    if wanted := _NO_LIST.search(message):
        return f"--{key}: {wanted[1]!r} is not a list; write [{wanted[1]}]"
    if named := _NO_CLASS.search(message):
        if key == "data":
            return not_a_data_set(named[1], public_classes("bclightning.data"))
        return f"--{key}: {named[1]!r} is not a class; write it as package.Class"
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
    except Exception as error:
        message = " ".join(str(error).split())
        if isinstance(error, MisconfigurationException) or _raised_by_lightning(error):
            raise UserError(_NO_GPU_SAID if _NO_GPU.search(message) else message) from error
        if type(error).__module__.partition(".")[0] == "wandb":
            raise UserError(
                f"the logger that --trainer.logger names is refused by W&B ({message}); leave it "
                "out, since runs are logged to W&B as --wandb.mode says"
            ) from error
        raise


def _raised_by_lightning(error: BaseException) -> bool:
    """Whether Lightning's own code refused something, and nothing that it called."""
    if not isinstance(error, ValueError | RuntimeError | ModuleNotFoundError):
        return False
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


def _usual_options() -> list[str]:
    """Options of the classes that recipes name, which a parser learns from a recipe alone."""
    return [
        f"--{group}.{argument.name}"
        for group, path in USUAL_CLASSES.items()
        for argument in arguments_of(path) or []
    ]


def _arguments(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    try:
        # Imported by the parser, if it is a class; the name may also be any text of the message.
        return list(inspect.signature(getattr(sys.modules[module], name)).parameters)
    except (KeyError, AttributeError, TypeError, ValueError):
        return []
