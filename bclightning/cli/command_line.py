"""What can be checked of a command line before the seconds that it takes to import torch.

Nothing is decided here that the parser of options would decide otherwise: what is refused, it
would refuse too, and what cannot be told from the source of the classes is left to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bclightning.errors import UserError
from bclightning.runs.folder import RunFolder
from bclightning.runs.hints import NO_EPOCHS, not_a_data_set, not_a_precision, unknown_option
from bclightning.runs.recipes import read_config, recipe_names, resolve_recipe
from bclightning.runs.signatures import USUAL_CLASSES, Argument, arguments_of, public_classes

CLASSIFIER = USUAL_CLASSES["model"]

# Classes whose arguments are options, by the group that the options are in.
GROUPS = {
    "trainer": "lightning.pytorch.trainer.trainer.Trainer",
    "wandb": "bclightning.tracking.mode.WandbOptions",
    "purpose": "bclightning.runs.config.RunPurpose",
}
RUN_OPTIONS = "bclightning.runs.config.RunOptions"

# Options whose value is a class of the user's choice.
CLASS_OPTIONS = ("model", "model.network", "data")

_SEED = Argument("seed_everything", ("int",), (), False, 0, "Seed of everything that is random.")

# Options that the parser has beside those of classes.
_OF_PARSER = ("config", "c", "print_config", "help", "h", "allow_code")

# These stand alone.
_WITHOUT_VALUE = ("print_config", "help", "h")

# Levels of a configuration that are no part of an option's name.
_LEVELS = ("init_args", "dict_kwargs")


@dataclass
class CommandLine:
    """A command line taken apart.

    Attributes:
        options: Option and value of each, in their order, without dashes.
        positionals: The words that belong to no option.
        files: The settings of the configurations that it names, each by itself: options by their
            dotted names, without levels of ``init_args``.
        settings: All of them and the options merged; the last value of each.
    """

    options: list[tuple[str, str | None]] = field(default_factory=list)
    positionals: list[str] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def asks_for_help(self) -> bool:
        """Whether help is asked for, and nothing is to be done."""
        return any(name == "h" or name.rpartition(".")[2] == "help" for name, _ in self.options)

    def values(self, *names: str) -> list[str]:
        """The values of some options."""
        return [value for name, value in self.options if name in names and value is not None]

    def agrees(self, settings: Mapping[str, Any], option: str) -> bool:
        """Whether the class that some settings name is the one that it comes to in the end."""
        return _class_in(settings, option) in (None, _class_in(self.settings, option))

    def class_of(self, option: str) -> str | None:
        """The class that an option names, by itself or in a configuration."""
        default = CLASSIFIER if option == "model" else None
        named = _class_in(self.settings, option)
        if not isinstance(named, str):
            return default
        package = {"model.network": "bclightning.models", "data": "bclightning.data"}.get(option)
        if "." not in named and package is not None and named in public_classes(package):
            return f"{package}.{named}"
        return CLASSIFIER if named == "bclightning.Classifier" else named


def _class_in(settings: Mapping[str, Any], option: str) -> Any:
    return settings.get(f"{option}.class_path")


def take_apart(words: Sequence[str]) -> CommandLine:
    """Take a command line apart; every option has a value but those that stand alone.

    Example:
        >>> take_apart(["run", "--data.root", "here", "-c=digits"]).options
        [('data.root', 'here'), ('c', 'digits')]
    """
    line = CommandLine()
    rest = iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            line.positionals.append(word)
            continue
        option, equals, value = word.partition("=")
        name = option.lstrip("-")
        given: str | None = value if equals else None
        if not equals and name not in _WITHOUT_VALUE:
            given = next(rest, None)
        line.options.append((name, given))
    return line


def read_settings(line: CommandLine, run: str | None) -> None:
    """Merge what a command line names into its settings: a run, configurations, then options.

    Args:
        line: The command line.
        run: The run that it names.

    Raises:
        UserError: There is no such run or file, or it cannot be read.
    """
    if run is not None:
        content = read_config(RunFolder.find(run).config)
        line.settings.update(flattened(content))
    for name, value in line.options:
        if name in ("config", "c") and value is not None:
            line.files.append(flattened(read_config(resolve_recipe(value))))
            line.settings.update(line.files[-1])
        else:
            line.settings |= _named({_without_levels(name.removesuffix("+")): value})


def flattened(content: Mapping[str, Any], group: str = "") -> dict[str, Any]:
    """A configuration by its options' dotted names, without levels of ``init_args``.

    Example:
        >>> flattened({"data": {"class_path": "a.B", "init_args": {"root": "here"}}})
        {'data.class_path': 'a.B', 'data.root': 'here'}
    """
    flat: dict[str, Any] = {}
    for key, value in content.items():
        option = _without_levels(f"{group}.{key}" if group else str(key))
        flat |= flattened(value, option) if isinstance(value, Mapping) else {option: value}
    return _named(flat)


def _named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with classes that are named in short, as ``data: mypackage.Data``, in full."""
    return {
        f"{option}.class_path" if option in CLASS_OPTIONS and isinstance(value, str) else option: (
            value
        )
        for option, value in settings.items()
    }


def _without_levels(option: str) -> str:
    return ".".join(part for part in option.split(".") if part not in _LEVELS)


@dataclass(frozen=True)
class KnownOptions:
    """The options of a command, as far as they are known without importing anything.

    Attributes:
        arguments: The options by their dotted names.
        open: Groups whose options are known to the parser alone.
        owners: Names of the classes that groups of options belong to.
    """

    arguments: dict[str, Argument]
    open: tuple[str, ...]
    owners: dict[str, str]


def known_options(own: str | None, line: CommandLine) -> KnownOptions:
    """The options of a command.

    Args:
        own: Class whose arguments are the command's own options.
        line: The command line, which says which classes there are.
    """
    classes: dict[str, str | None] = {"": RUN_OPTIONS, **GROUPS}
    classes |= {option: line.class_of(option) for option in CLASS_OPTIONS}
    arguments: dict[str, Argument] = {"seed_everything": _SEED}
    unknown, owners = [], {}
    for group, path in classes.items():
        found = None if path is None else arguments_of(path)
        if path is None or found is None:
            unknown.append(group)
            continue
        owners[group] = path.rpartition(".")[2]
        prefix = f"{group}." if group else ""
        arguments |= {f"{prefix}{argument.name}": argument for argument in found}
    for argument in (own and arguments_of(own)) or []:
        arguments[argument.name] = argument
    return KnownOptions(arguments, tuple(unknown), owners)


def check_options(line: CommandLine, known: KnownOptions, further: Sequence[str]) -> None:
    """Check the options of a command line and of the configurations that it names.

    Args:
        line: The command line, with its settings.
        known: The options that there are.
        further: Options of the command beside those.

    Raises:
        UserError: There is no such option, or it cannot have that value.
    """
    alone = (*_OF_PARSER, *further)
    for name, value in line.options:
        if name not in alone:
            _check_option(name.removesuffix("+"), value, known, alone)
    for settings in line.files:
        for option, value in settings.items():
            group = _group_of(option)
            if group in CLASS_OPTIONS and not line.agrees(settings, group):
                # Arguments of a class in whose place another one came.
                continue
            text = value if isinstance(value, str) else None
            _check_option(option, text, known, alone)


def _check_option(typed: str, value: str | None, known: KnownOptions, alone: Sequence[str]) -> None:
    option = _without_levels(typed)
    owner = _group_of(option)
    if option.endswith(".help") or option in GROUPS or option in alone:
        return
    path_of = option.removesuffix(".class_path")
    if path_of in CLASS_OPTIONS:
        _check_class(path_of, value)
        return
    if owner in known.open or any(owner.startswith(f"{group}.") for group in known.open if group):
        return
    prefix = f"{owner}." if owner else ""
    # What follows is for the parser alone: options of a value that is a class or a mapping.
    first, *deeper = option.removeprefix(prefix).split(".")
    argument = known.arguments.get(f"{prefix}{first}")
    if argument is None:
        names = [f"--{name}" for name in [*known.arguments, *alone] if len(name) > 1]
        owned = known.owners.get(owner, "") if owner in CLASS_OPTIONS else ""
        raise UserError(unknown_option(f"--{typed}", [*names, "--data", "--model"], owned))
    if value is None or deeper:
        return
    fault = argument.fault(value)
    if fault and option == "trainer.precision":
        fault = not_a_precision(value, argument.choices)
    if fault:
        raise UserError(f"--{option}: {fault}")


def _group_of(option: str) -> str:
    """The group of classes that an option belongs to, the innermost one."""
    groups = [g for g in (*GROUPS, *CLASS_OPTIONS) if option.startswith(f"{g}.")]
    return max(groups, key=len, default="")


def _check_class(option: str, value: str | None) -> None:
    """Refuse a data set that there is not; the classes of other options may have any name."""
    names = public_classes("bclightning.data")
    if option != "data" or value is None or not value.isidentifier() or value in names:
        return
    if value in ("None", "null", "ImageDataModule"):
        return
    raise UserError(not_a_data_set(value, names))


def check_words(
    words: Sequence[str], command: str, own: str | None, run_option: str
) -> CommandLine:
    """Check a command line as far as that can be done without importing torch.

    Args:
        words: The words after the command.
        command: Name of the command.
        own: Class whose arguments are the command's own options.
        run_option: Its option that names a run, with dashes.

    Returns:
        The command line taken apart.

    Raises:
        UserError: A mistake in it; one sentence that says what is meant.
    """
    line = take_apart(words)
    option = run_option.lstrip("-")
    takes_run = command != "fit"
    for name, value in line.options:
        if value is None and name not in _WITHOUT_VALUE and not name.endswith(".help"):
            raise UserError(f"{'-' if name == 'c' else '--'}{name} needs a value")
    for word in line.positionals[1 if takes_run else 0 :]:
        raise UserError(f"there is no argument {word!r}{_meaning(word)}")
    named = [*line.values(option), *line.positionals]
    run = named[0] if named else None
    if command == "summary" and run is not None:
        run = run_of_config(run) or run
        if names_recipe(run):
            line.options.insert(0, ("config", run))
            run = None
    read_settings(line, run)
    check_options(line, known_options(own, line), [option])
    # A run that the weights come from may have the settings, too.
    from_run = named or line.values("warm_start")
    if command == "fit" and not from_run and not line.asks_for_help:
        _require(line)
    return line


def _require(line: CommandLine) -> None:
    """Make sure of what a new run needs, and no default is right for."""
    settings = line.settings
    if not {"data.class_path", "model.class_path"} & set(settings):
        raise UserError("name a recipe or a file with --config, as bcl fit --config digits.yaml")
    if settings.get("trainer.max_epochs") is None and not isinstance(settings.get("trainer"), str):
        raise UserError(NO_EPOCHS)


def _meaning(word: str) -> str:
    name, equals, _ = word.partition("=")
    if equals and name.replace(".", "").replace("_", "").isalnum():
        return f"; options begin with --, as --{word}"
    if _is_run(word):
        return f" (did you mean --resume {word}?)"
    if word.endswith((".yaml", ".yml")) or f"{word}.yaml" in recipe_names():
        return f" (did you mean --config {word}?)"
    return "; options begin with --"


def _is_run(word: str) -> bool:
    try:
        RunFolder.find(word)
    except UserError:
        return False
    return True


def run_of_config(word: str) -> str | None:
    """The folder of the run whose own configuration a word names."""
    path = Path(word)
    is_own = path.name == "config.yaml" and (path.parent / "run.json").is_file()
    return str(path.parent) if is_own else None


def names_recipe(word: str) -> bool:
    """Whether a word names a configuration file or a recipe, and not a run."""
    return word.endswith((".yaml", ".yml")) or f"{word}.yaml" in recipe_names()
