"""Help on one screen: what people set, in groups, with the values that hold without an option.

Types, choices and defaults are read from the classes' source, so they are those of the parser, and
torch is not waited for. ``--help=all`` is the parser's own help, with everything.
"""

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from bclightning.cli.command_line import (
    CLASS_OPTIONS,
    GROUPS,
    CommandLine,
    KnownOptions,
    known_options,
)
from bclightning.errors import UserError
from bclightning.runs.recipes import recipe_names
from bclightning.runs.signatures import (
    REQUIRED,
    UNKNOWN,
    USUAL_CLASSES,
    Argument,
    arguments_of,
    constant_of,
    summary_of,
)

WIDTH = 80

# Where the text beside an option begins.
INDENT = 30

Rows = tuple[tuple[str, str], ...]

# The options of a run that people set. A text that ends with a colon is followed by the choices;
# an option with an empty text is described by the docstring of its class.
NETWORK: Rows = (
    ("model.network.regularizer", "What regularizes the network:"),
    ("model.network.hidden", "Units of each hidden layer."),
    ("model.network.width", "Factor on the number of channels and units."),
    ("model.network.dropout", "Probability of dropping a hidden unit."),
    ("model.network.class_path", "Another network, such as mypackage.Net."),
)
TRAINING: Rows = (
    ("trainer.max_epochs", "Number of epochs."),
    ("model.learning_rate", "Learning rate of the first epoch."),
    ("model.final_learning_rate", "Learning rate after the last epoch."),
    ("model.optimizer", "Optimizer:"),
    ("model.loss", "Loss:"),
    ("trainer.accelerator", "Where to train: cpu, gpu or auto."),
    ("trainer.devices", "Number of devices."),
    ("trainer.precision", "32-true, bf16-mixed, 16-mixed or 64-true."),
    ("threads", "Number of CPU threads; chosen if left out."),
    ("warm_start", "Checkpoint or run that the first weights come from."),
    ("seed_everything", ""),
)
DATA: Rows = (
    ("data", "Another data module, such as mypackage.Data."),
    ("data.root", "Folder of the data files, or BCL_DATA."),
    ("data.batch_size", "Images in a mini-batch."),
)
RUN: Rows = (
    ("resume", "Stopped run to resume: its folder or its id."),
    ("experiment", "Group of runs; DATA-fit if left out."),
    ("run_id", "Name of the run and its folder."),
    ("runs_dir", "Folder of all runs."),
    ("monitor", "Metric that chooses the best epoch."),
    ("monitor_mode", "The best value of it:"),
)
OWN_MODEL: Rows = (
    ("model", "A LightningModule, such as mypackage.Module."),
    ("binarization", "Binary layers:"),
    ("skip", "Layers that stay real: names or patterns."),
)
WANDB: Rows = (
    ("wandb.mode", "How runs reach W&B:"),
    ("wandb.project", "Project of the runs."),
    ("wandb.entity", "User or team; the key's own if left out."),
    ("wandb.tags", "More tags of the run, as [quick,mine]."),
)
PLACES: Rows = (
    ("data.root", "Folder of the data files, or BCL_DATA."),
    ("trainer.accelerator", "Where to compute: cpu, gpu or auto."),
    ("config", "Configuration of --ckpt_path, where there is no run."),
    ("allow_code", "Package that a run which was not made here may use."),
)

# What argparse or the parser has, and no class.
_METAVARS = {"config": "FILE", "resume": "RUN", "allow_code": "PACKAGE"}


def help_asked_for(command: str, own: str | None, line: CommandLine) -> str | None:
    """The help that a command line asks for; ``None`` where it asks for none, or for the parser's.

    Args:
        command: Name of the command.
        own: Class whose arguments are the command's own options.
        line: The command line with its settings.
    """
    if any(name in ("help", "h") for name, _ in line.options):
        return short_help(command, own, line)
    for name, value in line.options:
        group = name.removesuffix(".help")
        if group != name and group in (*GROUPS, *CLASS_OPTIONS):
            return group_help(group, value, line)
    return None


def short_help(command: str, own: str | None, line: CommandLine) -> str:
    """The help of a command, on one screen.

    Args:
        command: Name of the command.
        own: Class whose arguments are the command's own options.
        line: The command line, which may name a recipe: its values are shown then.
    """
    known = _with_defaults(known_options(own, line), own, line)
    options = [(argument.name, "") for argument in (own and arguments_of(own)) or []]
    sections: list[tuple[str, Iterable[tuple[str, str]]]]
    match command:
        case "fit":
            sections = _of_fit(known, line)
        case "summary":
            sections = [
                ("options", options),
                ("network", NETWORK),
                ("run that was not made here", PLACES[-1:]),
            ]
        case "reproduce":
            sections = [("options", options), ("where things are here", [*PLACES[:2], PLACES[3]])]
        case _:
            sections = [("options", options), ("where things are here", PLACES)]
    paragraphs = [_usage(command), _filled(_description(command))]
    for title, rows in sections:
        lines = [_row(option, text, known, line.settings) for option, text in rows]
        shown = [text for text in lines if text]
        paragraphs.append("\n".join([title, *shown]))
    paragraphs.append(_more(command))
    return "\n\n".join(paragraphs) + "\n"


def shown_options(command: str, own: str | None, line: CommandLine) -> dict[str, Any]:
    """The options that `short_help` shows, with the values that it shows for them."""
    known = _with_defaults(known_options(own, line), own, line)
    text = short_help(command, own, line)
    return {
        name: line.settings.get(name, argument.default)
        for name, argument in known.arguments.items()
        if f"\n  --{name} " in text or f"\n  --{name}\n" in text
    }


def _of_fit(known: KnownOptions, line: CommandLine) -> list[tuple[str, Iterable[tuple[str, str]]]]:
    names = ", ".join(name.removesuffix(".yaml") for name in recipe_names())
    config = f"Recipe ({names}) or your own YAML file; may be repeated."
    recipe = [("config", config), ("print_config", "Print the whole configuration, and stop.")]
    owner = known.owners.get("model.network", "your own")
    return [
        ("recipe", recipe),
        (f"network ({owner})", NETWORK),
        ("training", TRAINING),
        (f"data ({known.owners.get('data', 'your own')})", DATA),
        ("run", RUN),
        ("model of your own", OWN_MODEL),
        ("W&B", WANDB),
    ]


def _usage(command: str) -> str:
    match command:
        case "fit":
            lines = ["bcl fit --config RECIPE|FILE [options]", "bcl fit --resume RUN"]
        case "summary":
            lines = ["bcl summary RUN|RECIPE|FILE [options]"]
        case "reproduce":
            lines = ["bcl reproduce RUN [options]"]
        case _:
            lines = [f"bcl {command} RUN [options]"]
            lines.append(f"bcl {command} --config FILE --ckpt_path CHECKPOINT [options]")
    return "usage: " + "\n       ".join(lines)


def _description(command: str) -> str:
    if command == "fit":
        return (
            "Train a network. Files are merged in their order, and options have the last word. In "
            "brackets: the value without the option; with --config, that of the recipe."
        )
    said = constant_of(f"bclightning.cli.{command}.DESCRIPTION") or ""
    return f"{said} In brackets: the value without the option."


def _more(command: str) -> str:
    lines = [("--help=all", "All options, with those of Lightning's Trainer.")]
    if command == "fit":
        lines += [
            ("--model.network.help", "All arguments of the network; so --model.help,"),
            ("", "--data.help, --trainer.help, --wandb.help."),
        ]
    return "\n".join(["more", *(f"  {option:<{INDENT - 2}}{text}" for option, text in lines)])


def group_help(group: str, named: str | None, line: CommandLine) -> str | None:
    """What ``--GROUP.help`` prints: the arguments of the class that the group's options belong to.

    Args:
        group: ``model.network``, ``model``, ``data``, ``trainer``, ``wandb`` or ``purpose``.
        named: The class that was named with it.
        line: The command line with its settings.

    Returns:
        The text; ``None`` where the parser has to import the class to know.

    Raises:
        UserError: Nothing says which class is meant.
    """
    if named is not None:
        line.settings[f"{group}.class_path"] = named
    path = GROUPS.get(group) or line.class_of(group)
    if path is None:
        example = USUAL_CLASSES[group]
        raise UserError(
            f"name the class or a recipe that has one: bcl fit --config mnist.yaml --{group}.help, "
            f"or --{group}.help {example}"
        )
    if arguments_of(path) is None:
        return None
    known = _with_defaults(known_options(None, line), None, line)
    rows = [
        _row(option, "", known, line.settings)
        for option in known.arguments
        if option.rpartition(".")[0] == group and option not in CLASS_OPTIONS
    ]
    head = _filled(f"{path}: {summary_of(path)}")
    return "\n".join([head, "", *filter(None, rows)]) + "\n"


def _with_defaults(known: KnownOptions, own: str | None, line: CommandLine) -> KnownOptions:
    """The options of a command line, with those of the usual classes where none is named."""
    usual = {group: path for group, path in USUAL_CLASSES.items() if line.class_of(group) is None}
    for group, path in usual.items():
        line.settings.setdefault(f"{group}.class_path", path)
    if usual:
        known = known_options(own, line)
        for group in usual:
            del line.settings[f"{group}.class_path"]
    changed = constant_of("bclightning.runs.config.TRAINER_DEFAULTS") or {}
    arguments = dict(known.arguments)
    for name, value in changed.items():
        argument = arguments[f"trainer.{name}"]
        arguments[f"trainer.{name}"] = Argument(
            argument.name, argument.types, argument.choices, argument.other, value, argument.help
        )
    return KnownOptions(arguments, known.open, known.owners)


def _row(option: str, text: str, known: KnownOptions, settings: Mapping[str, Any]) -> str:
    """An option and what it is, or nothing where the classes at hand have no such option."""
    argument = known.arguments.get(option)
    if argument is None and "." in option and not option.endswith(".class_path"):
        return ""
    if argument is not None:
        text = text or argument.help
        if text.endswith(":"):
            text = f"{text} {', '.join(str(choice) for choice in argument.choices)}."
        value = settings.get(option, argument.default)
        if option not in CLASS_OPTIONS:
            text += _bracketed(value)
    elif option in _METAVARS:
        option = f"{option} {_METAVARS[option]}"
    head = f"  {'-c, ' if option.startswith('config') else ''}--{option}"
    lines = textwrap.wrap(text, WIDTH - INDENT, break_on_hyphens=False) or [""]
    if len(head) >= INDENT:
        lines.insert(0, "")
    first, *others = lines
    return "\n".join([f"{head:<{INDENT}}{first}".rstrip(), *(" " * INDENT + o for o in others)])


def _bracketed(value: Any) -> str:
    if value is None or value is REQUIRED or value is UNKNOWN or value == []:
        return ""
    if isinstance(value, bool):
        return f" [{str(value).lower()}]"
    if isinstance(value, list | tuple):
        return f" [{','.join(map(str, value))}]"
    return f" [{value}]"


def _filled(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), WIDTH)
