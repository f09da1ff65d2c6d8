"""Configuration files: recipes that ship with the package, by bare name, and files anywhere."""

from importlib import resources
from pathlib import Path
from typing import Any

from bclightning.errors import UserError, nearest
from bclightning.storage import expanded, home_expanded
from bclightning.yaml_files import parse_yaml, read_text

# What older versions called an option, in files that were written then.
_RENAMED_GROUPS = {"job": "purpose"}
_RENAMED_IN_PURPOSE = {"token": "sweep_id"}


def recipe_names() -> list[str]:
    """The recipes that ship with the package, as ``digits.yaml``."""
    folder = resources.files("bclightning") / "configs"
    return sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def resolve_recipe(name: str) -> Path:
    """The configuration file that `name` means: a path as it is, else a shipped recipe's name.

    Args:
        name: A path, or a bare name with or without ``.yaml``.

    Raises:
        UserError: It is neither; the message names the known recipes and suggests the nearest.

    Example:
        >>> resolve_recipe("digits.yaml").name
        'digits.yaml'
    """
    path = expanded(name)
    if path.is_file():
        return path
    known = recipe_names()
    bare = name if name.endswith(".yaml") else f"{name}.yaml"
    if bare in known:
        return Path(str(resources.files("bclightning") / "configs" / bare))
    raise UserError(
        f"there is no configuration file or recipe {name!r}{nearest(bare, known)}; "
        f"the recipes are {', '.join(known)}"
    )


def read_config(path: Path) -> dict[str, Any]:
    """Read a configuration file, with the options of older versions under today's names.

    A path in it may begin with ``~/``, the user's own folder.

    Raises:
        UserError: The file cannot be read, or is no YAML mapping.

    Example:
        >>> read_config(resolve_recipe("digits.yaml"))["trainer"]
        {'max_epochs': 50}
    """
    return parse_config(read_text(path), path)


def parse_config(text: str, path: Path) -> dict[str, Any]:
    """Read the text of a configuration file, see `read_config`.

    Args:
        text: The file's text.
        path: The file, as errors name it.

    Raises:
        UserError: It is no YAML mapping.
    """
    try:
        content = home_expanded(parse_yaml(text))
    except UserError as error:
        if path.suffix not in (".yaml", ".yml", ".json"):
            raise _not_a_configuration(path) from error
        raise UserError(f"{path} is not a readable YAML file: {error}") from error
    if not isinstance(content, dict):
        raise _not_a_configuration(path)
    config: dict[str, Any] = {
        _RENAMED_GROUPS.get(str(key), str(key)): value for key, value in content.items()
    }
    if isinstance(config.get("purpose"), dict):
        config["purpose"] = {
            _RENAMED_IN_PURPOSE.get(key, key): value for key, value in config["purpose"].items()
        }
    return config


def _not_a_configuration(path: Path) -> UserError:
    return UserError(
        f"{path} is not a YAML configuration; give a file of options and values, or a recipe: "
        f"{', '.join(recipe_names())}"
    )
