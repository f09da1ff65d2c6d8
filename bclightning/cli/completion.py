"""`bcl completion`: a script that lets a shell complete commands, options and their values."""

import argparse
import importlib
from typing import Any

import shtab

from bclightning.cli.command_line import CommandLine, known_options
from bclightning.runs.recipes import recipe_names
from bclightning.runs.signatures import Argument, public_classes
from bclightning.sweep.definition import shipped_definitions

DESCRIPTION = (
    "Print a script that completes the words of bcl in a shell. Put this into ~/.bashrc (zsh: "
    'completion zsh): eval "$(bcl completion bash)"; or, to keep shells quick to start, save the '
    "script once where the shell looks for completions."
)

# Options and arguments whose values are files or folders.
_FILES = ("--ckpt_path", "--output", "--images", "--warm_start", "file")
_FOLDERS = ("--runs_dir", "--data.root", "--data.cache_dir", "--write", "--check", "folder")

# Options and arguments whose values have names of ours, by the shell function that knows them.
_NAMED = {
    "--config": "_bcl_recipe_or_file",
    "--resume": "_bcl_run_or_dir",
    "--run": "_bcl_run_or_dir",
    "run": "_bcl_run_or_dir",
    "runs": "_bcl_run_or_dir",
    "config_or_run": "_bcl_recipe_run_or_file",
    "source": "_bcl_run_or_file",
    "definition": "_bcl_sweep_or_file",
}

# The classes that recipes name, which the parser learns from a recipe alone.
_CLASSES = {
    "model.network": [
        f"bclightning.models.{name}" for name in public_classes("bclightning.models")
    ],
    "data": [f"bclightning.data.{name}" for name in public_classes("bclightning.data")],
}

# A run is named by its id below results/runs, or by its folder.
_BASH = """
_bcl_run_ids() {
  local path
  for path in results/runs/*/*/config.yaml; do
    [ -e "$path" ] || continue
    path="${path%/config.yaml}"
    echo "${path##*/}"
  done
}
_bcl_run_or_dir() { compgen -W "$(_bcl_run_ids)" -- "$1"; compgen -d -- "$1"; }
_bcl_run_or_file() { compgen -W "$(_bcl_run_ids)" -- "$1"; compgen -f -- "$1"; }
_bcl_recipe_or_file() { compgen -W "RECIPES" -- "$1"; compgen -f -- "$1"; }
_bcl_recipe_run_or_file() { compgen -W "$(_bcl_run_ids)" -- "$1"; _bcl_recipe_or_file "$1"; }
_bcl_sweep_or_file() { compgen -W "SWEEPS" -- "$1"; compgen -f -- "$1"; }
"""
_ZSH = """
_bcl_run_ids() { local -a ids; ids=(results/runs/*/*/config.yaml(N:h:t)); compadd -a ids }
_bcl_run_or_dir() { _bcl_run_ids; _files -/ }
_bcl_run_or_file() { _bcl_run_ids; _files }
_bcl_recipe_or_file() { compadd RECIPES; _files }
_bcl_recipe_run_or_file() { _bcl_run_ids; _bcl_recipe_or_file }
_bcl_sweep_or_file() { compadd SWEEPS; _files }
"""


class _Branch(argparse.ArgumentParser):
    """A command in the tree, whose values are completed by names and by files or folders."""

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        action: Any = super().add_argument(*args, **kwargs)
        for name in [*action.option_strings, action.dest]:
            if name in _NAMED:
                own = {"bash": _NAMED[name], "zsh": _NAMED[name]}
                action.complete = {**shtab.FILE, **own}
                break
            if name in _FILES or name in _FOLDERS:
                action.complete = shtab.FILE if name in _FILES else shtab.DIRECTORY
                break
        return action


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS, help="Name of the shell.")


def run(options: argparse.Namespace) -> int:
    """Print the script."""
    functions = {"bash": _BASH, "zsh": _ZSH}.get(options.shell, "")
    names = {"RECIPES": recipe_names(), "SWEEPS": shipped_definitions()}
    for word, known in names.items():
        functions = functions.replace(word, " ".join(known))
    print(shtab.complete(_all_commands(), options.shell, preamble=functions))
    return 0


def _all_commands() -> argparse.ArgumentParser:
    """All commands and their options, as one tree for the script."""
    from bclightning.cli.main import COMMANDS

    tree = argparse.ArgumentParser("bcl", allow_abbrev=False)
    tree.add_argument("--version", action="store_true", help="version")
    branches = tree.add_subparsers(parser_class=_Branch)
    for name, command in COMMANDS.items():
        branch = branches.add_parser(name, help=command.examples[0][0].rstrip(":"))
        if not command.configures:
            importlib.import_module(f"bclightning.cli.{name}").add_arguments(branch)
            continue
        run_option = [command.run_option] if command.run_option else []
        branch.add_argument("-c", "--config")
        for option in ("--allow_code", "--print_config", *run_option):
            branch.add_argument(option)
        for option, choices in _options(command.own).items():
            branch.add_argument(f"--{option}", choices=choices)
        if name == "summary":
            branch.add_argument("config_or_run", nargs="?")
        elif name != "fit":
            branch.add_argument("run", nargs="?")
    return tree


def _options(own: str | None) -> dict[str, list[str] | None]:
    """The options of a command, each with its choices where it has any."""
    options: dict[str, Argument | None] = {"model": None, "data": None}
    for group, classes in _CLASSES.items():
        options[f"{group}.class_path"] = None
        for path in classes:
            line = CommandLine(settings={f"{group}.class_path": path})
            options |= known_options(own, line).arguments
    choices = {name: _choices(argument) for name, argument in options.items()}
    choices |= {f"{group}.class_path": list(classes) for group, classes in _CLASSES.items()}
    return {**choices, "data": list(_CLASSES["data"])}


def _choices(argument: Argument | None) -> list[str] | None:
    if argument is None:
        return None
    if argument.name == "accelerator":
        return ["auto", "cpu", "gpu"]
    if argument.types == ("bool",):
        return ["true", "false"]
    return [str(choice) for choice in dict.fromkeys(map(str, argument.choices))] or None
