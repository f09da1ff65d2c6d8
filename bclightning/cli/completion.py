"""`bcl completion`: a script that lets a shell complete commands, options and their values."""

import argparse
import importlib
import inspect
from typing import Any

import shtab

from bclightning.vocabulary import REGULARIZERS

DESCRIPTION = (
    "Print a script that completes the words of bcl in a shell. Put this into ~/.bashrc (zsh: "
    'completion zsh): eval "$(bcl completion bash)"; or, to keep shells quick to start, save the '
    "script once where the shell looks for completions."
)

# Options whose values are files or folders.
_FILES = ("--config", "--ckpt_path", "--output", "--images", "--warm_start")
_FOLDERS = ("--runs_dir", "--data.root", "--data.cache_dir", "--write", "--check", "--resume")


class _Branch(argparse.ArgumentParser):
    """A command in the tree, whose options are completed by the names of files or folders."""

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        action: Any = super().add_argument(*args, **kwargs)
        if any(option in _FILES for option in action.option_strings):
            action.complete = shtab.FILE
        elif any(option in _FOLDERS for option in action.option_strings):
            action.complete = shtab.DIRECTORY
        return action


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS, help="Name of the shell.")


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    print(shtab.complete(_all_commands(), options.shell))
    return 0


def _all_commands() -> argparse.ArgumentParser:
    """All commands and their options, as one tree for the script."""
    from bclightning.cli.main import COMMANDS, make_parser

    tree = argparse.ArgumentParser("bcl", allow_abbrev=False)
    tree.add_argument("--version", action="store_true", help="version")
    branches = tree.add_subparsers(parser_class=_Branch)
    for name, command in COMMANDS.items():
        module = importlib.import_module(f"bclightning.cli.{name}")
        if command.configures:
            branch = branches.add_parser(name, help=command.examples[0][0].rstrip(":"))
            _add_run_options(branch, make_parser(name, module))
            positional: Any = branch.add_argument("run", nargs="?")
            positional.complete = shtab.DIRECTORY
        else:
            branch = branches.add_parser(name, help=command.examples[0][0].rstrip(":"))
            module.add_arguments(branch)
    return tree


def _add_run_options(branch: argparse.ArgumentParser, parser: Any) -> None:
    from bclightning.runs.config import option_names

    names = [*option_names(parser), "--config", "--resume", "--print_config", *_nested_options()]
    for name in dict.fromkeys(names):
        if name == "--run":
            continue
        values = {"--model.network.regularizer": REGULARIZERS}.get(name)
        branch.add_argument(name, choices=values)


def _nested_options() -> list[str]:
    """Options of the classes that recipes name, which the parser learns from a recipe alone."""
    from bclightning import data, models, training

    groups: dict[str, list[type]] = {
        "--model": [training.Classifier],
        "--model.network": [models.MLP, models.ConvNet],
        "--data": [data.Digits, data.CIFAR10],
    }
    return [
        f"{group}.{name}"
        for group, classes in groups.items()
        for kind in classes
        for name in inspect.signature(kind).parameters
    ]
