"""The configuration of a run in Lightning's dialect, with recipes found by bare name."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, cast

import yaml
from jsonargparse import ActionConfigFile, ArgumentError  # type: ignore[attr-defined]
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.seed import max_seed_value, min_seed_value
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from bclightning import __version__
from bclightning.errors import UserError, nearest
from bclightning.runs.parser_errors import explain
from bclightning.storage import write_text
from bclightning.training.callbacks import BinaryConnect
from bclightning.training.classifier import Classifier

# What differs from Lightning's own defaults, and is still an option like any other.
TRAINER_DEFAULTS = {
    "devices": 1,  # a run is recorded with one device; several are asked for
    "num_sanity_val_steps": 0,  # before training batch norm has no statistics to validate with
    "enable_model_summary": False,  # the closing table tells the size
}


def recipe_names() -> list[str]:
    """The recipes that ship with the package, as ``digits.yaml``."""
    folder = resources.files("bclightning") / "configs"
    return sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def resolve_recipe(name: str) -> Path:
    """The configuration file that `name` means: a path as it is, else a shipped recipe's name.

    Args:
        name: A path, or a bare name with or without ``.yaml``.

    Raises:
        UserError: Neither; the message names the known recipes and suggests the nearest.

    Example:
        >>> resolve_recipe("digits.yaml").name
        'digits.yaml'
    """
    path = Path(name)
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


class RecipeFile(ActionConfigFile):
    """``--config`` for files anywhere and for the package's recipes by bare name."""

    def __call__(
        self,
        parser: Any,
        cfg: Any,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Merge the file into the configuration so far."""
        super().__call__(parser, cfg, str(resolve_recipe(values)), option_string)  # type: ignore[no-untyped-call]


class RunCLI(LightningCLI):
    """The configuration of a run, parsed and checked; nothing is built until `build` is called.

    Args:
        args: The command line after the subcommand.
        prog: What help calls the program, as ``bcl fit``.
        description: What help says that it does.
        settings: Dataclasses of more options, by the name of their group.
        shown: Options that the command has taken out of `args` already, with their help; they are
            no part of the configuration.

    Attributes:
        config: The resolved configuration.

    Raises:
        UserError: An option or a value is wrong; one sentence that names it.
    """

    def __init__(
        self,
        args: Sequence[str],
        prog: str = "bcl fit",
        description: str = "",
        settings: dict[str, type] | None = None,
        shown: dict[str, str] | None = None,
    ) -> None:
        self._settings = settings or {}
        self._shown = shown or {}
        try:
            super().__init__(
                model_class=Classifier,
                datamodule_class=LightningDataModule,
                subclass_mode_data=True,
                save_config_callback=None,
                trainer_defaults=dict(TRAINER_DEFAULTS),
                seed_everything_default=0,
                parser_kwargs={"prog": prog, "description": description, "exit_on_error": False},
                args=list(args),
                run=False,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
            )
        except ArgumentError as error:
            raise UserError(self._sentence(str(error))) from error

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Lightning's parser, with recipes as configuration files."""
        kwargs["dump_header"] = [f"bclightning=={__version__}"]
        # An abbreviation is a misspelling that happens to be unique today.
        parser = LightningArgumentParser(**kwargs, allow_abbrev=False)
        parser.add_argument(
            "-c",
            "--config",
            action=RecipeFile,
            help="A YAML file, or a recipe by bare name "
            f"({', '.join(recipe_names())}); several are merged, the last one wins.",
        )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options of a run that are not Lightning's."""
        parser.add_argument(
            "--experiment",
            type=str | None,
            default=None,
            help="Name of the group of runs; the name of the data set when left out.",
        )
        parser.add_argument(
            "--run_id",
            type=str | None,
            default=None,
            help="Name of the run and its folder; made of method, seed and time when left out.",
        )
        parser.add_argument(
            "--runs_dir",
            type=str,
            default="results/runs",
            help="Folder of all runs: a run lies in RUNS_DIR/EXPERIMENT/RUN_ID.",
        )
        parser.add_argument(
            "--warm_start",
            type=str | None,
            default=None,
            help="A checkpoint, of a float or a binary network, to take the first weights from.",
        )
        for key, settings in self._settings.items():
            parser.add_class_arguments(settings, key)
        for option, text in self._shown.items():
            parser.add_argument(option, type=str | None, default=None, help=text)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse `args` alone; Lightning would warn of a command line beside them."""
        self.config = parser.parse_args(cast(list[str], args))
        for option in self._shown:
            del self.config[option.removeprefix("--").replace("-", "_")]
        seed = self.config.seed_everything
        # Lightning takes false for no seed; what a run draws is a function of its own.
        if isinstance(seed, bool) or not min_seed_value <= seed <= max_seed_value:
            raise UserError(
                f"--seed_everything is a number from {min_seed_value} to {max_seed_value}, "
                f"and not {str(seed).lower()}"
            )

    def instantiate_classes(self) -> None:
        """Nothing yet: a run's folder is made between the check and the building."""

    def plain_config(self) -> dict[str, Any]:
        """The resolved configuration as plain data, fit for a file or a logger."""
        config: dict[str, Any] = yaml.safe_load(self.parser.dump(self.config, skip_unset=False))
        return config

    def write_config(self, path: Path) -> None:
        """Write the resolved configuration to a file that ``--config`` reads."""
        write_text(path, self.parser.dump(self.config, skip_unset=False))

    def build_modules(self) -> tuple[Classifier, LightningDataModule]:
        """Build the model and the data module.

        A `BinaryConnect` among the trainer's callbacks converts the model here already, so that
        the run's name and record tell what is trained.

        Raises:
            UserError: A value that only the classes could check is wrong; the message is theirs.
        """
        try:
            built = self.parser.instantiate(self.config)
            for callback in _as_list(built.trainer.callbacks):
                if isinstance(callback, BinaryConnect):
                    callback.convert(built.model)
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise UserError(self._sentence(str(error))) from error
        self.config_init = built
        return built.model, built.data

    def _sentence(self, message: str) -> str:
        options = [option for option in self.parser._option_string_actions if option[:2] == "--"]
        return explain(message, options)

    def build_trainer(
        self,
        callbacks: Sequence[Callback] = (),
        plugins: Sequence[CheckpointIO] = (),
    ) -> Trainer:
        """Build the trainer of the configuration, with what a run adds to it.

        Call `build_modules` first. Callbacks and plugins of the configuration stay. Lightning's
        default logger is left out: a run has loggers of its own.

        Raises:
            UserError: Lightning refuses a setting; the message is its own.
        """
        settings = dict(self.config_init.trainer)
        settings["callbacks"] = [*_as_list(settings["callbacks"]), *callbacks]
        settings["plugins"] = [*_as_list(settings["plugins"]), *plugins]
        settings["logger"] = _as_list(settings["logger"]) or False
        try:
            return Trainer(**settings)
        except (ValueError, TypeError, MisconfigurationException, ImportError) as error:
            raise UserError(self._sentence(str(error))) from error


def _as_list(value: Any) -> list[Any]:
    # Lightning takes one object, a list, None, or a bool for its default or none.
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def take_option(arguments: Sequence[str], option: str) -> tuple[str | None, list[str]]:
    """Take an option with a value out of a command line, before the parser sees it.

    Returns:
        The value, or ``None`` where the option is not there; and the other arguments.

    Raises:
        UserError: The option has no value.

    Example:
        >>> take_option(["--resume", "RUN", "--wandb.mode=offline"], "--resume")
        ('RUN', ['--wandb.mode=offline'])
    """
    value: str | None = None
    rest: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == option:
            value = next(remaining, None)
            if value is None or value.startswith("--"):
                raise UserError(f"{option} needs a value")
        elif argument.startswith(f"{option}="):
            value = argument.partition("=")[2]
        else:
            rest.append(argument)
    return value, rest
