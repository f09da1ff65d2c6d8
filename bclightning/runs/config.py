"""The configuration of a run: read from files, mappings or words, checked, and built."""

import argparse
import contextlib
import enum
import functools
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse import (  # type: ignore[attr-defined]
    ActionConfigFile,
    ArgumentError,
    Namespace,
    set_dumper,
)
from jsonargparse.typing import register_type
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.seed import max_seed_value, min_seed_value
from lightning.pytorch import (
    Callback,
    LightningDataModule,
    LightningModule,
    Trainer,
    seed_everything,
)
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser

from bclightning import __version__
from bclightning.errors import UserError
from bclightning.runs.allowed_code import HELP, OPTION, AllowedCode, open_config
from bclightning.runs.data import root_of_run, root_to_write
from bclightning.runs.folder import RunFolder
from bclightning.runs.hyperparameters import changed_options
from bclightning.runs.late_layers import makes_layers_late
from bclightning.runs.notices import quiet_lightning
from bclightning.runs.origin import signed
from bclightning.runs.parser_errors import format_parser_error, lightning_errors
from bclightning.runs.recipes import read_config, recipe_names, resolve_recipe
from bclightning.runs.slurm import first_if_alone
from bclightning.runs.warm_start import run_named_by, settings_of
from bclightning.storage import home_expanded, write_text
from bclightning.tracking.mode import WandbOptions
from bclightning.training import BinaryConnect
from bclightning.vocabulary import VAL_ERROR, Binarization, MonitorMode, Stage

# What differs from Lightning's own defaults, and is still an option like any other.
TRAINER_DEFAULTS = {
    "devices": 1,  # a run is recorded with one device; several are asked for
    "num_sanity_val_steps": 0,  # before training batch norm has no statistics to validate with
    "enable_model_summary": False,  # the closing table tells the size
}

DEFAULT_MODEL = "bclightning.Classifier"

_WARM_START = "--warm_start"

# What the parser writes in place of a value that it cannot write.
_NOT_WRITTEN = "Unable to serialize instance"

# Name of the YAML that `plain` has the parser write.
_FORMAT = "bclightning"


class _Dumper(yaml.SafeDumper):
    """Writes the members of enumerations of texts, which Lightning has as defaults, as texts."""


_Dumper.add_multi_representer(enum.Enum, lambda dumper, member: dumper.represent_data(member.value))
set_dumper(_FORMAT, lambda content: str(yaml.dump(content, Dumper=_Dumper, sort_keys=False)))
# Default of StochasticWeightAveraging.
register_type(torch.device)


@dataclass
class RunOptions:
    """Options of a run that are neither Lightning's nor a class's.

    Args:
        experiment: Name of the group of runs and of its folder; the name of the data set and -fit
            if left out, as a sweep has a folder of its own.
        run_id: Name of the run and its folder; made of data, regularizer, seed and time if left
            out.
        runs_dir: Folder of all runs: a run lies in RUNS_DIR/EXPERIMENT/RUN_ID.
        warm_start: What the first weights come from: a checkpoint of a float or a binary network,
            or a run, whose last weights are meant. On the command line a run's settings are taken
            too, and other options change them.
        monitor: Logged validation metric that chooses the best epoch.
        monitor_mode: Whether the lowest (min) or the highest value (max) of it is the best.
        test_metric: Metric that the test step logs and tables show; the monitored one with test in
            place of val if left out.
        binarization: Make the model's Linear and Conv2d layers binary, deterministic or stochastic;
            for models that do not bring binary layers themselves.
        skip: Modules that stay real under --binarization, as names or shell patterns.
    """

    experiment: str | None = None
    run_id: str | None = None
    runs_dir: str = "results/runs"
    warm_start: str | None = None
    monitor: str = VAL_ERROR
    monitor_mode: MonitorMode = "min"
    test_metric: str | None = None
    binarization: Binarization | None = None
    skip: str | list[str] | None = None


@dataclass
class RunPurpose:
    """What a run is for; a sweep sets it for its trials.

    Args:
        stage: train, or a sweep's tune (which does not touch the test set) or final.
        arm: Arm of the sweep that the run belongs to.
        trial: Number of the sweep's trial.
        sweep_id: Tells the runs of this sweep from those of another one of the same name.
    """

    stage: Stage = "train"
    arm: str | None = None
    trial: int | None = None
    sweep_id: str | None = None


@dataclass(frozen=True)
class BuiltRun:
    """The objects that a configuration describes.

    Attributes:
        model: The LightningModule, with its binary layers.
        data: The data module.
        wandb: How the run reaches W&B.
        purpose: What the run is for.
        binarization: What a `BinaryConnect` callback makes of layers; ``None`` without one.
    """

    model: LightningModule
    data: LightningDataModule
    wandb: WandbOptions
    purpose: RunPurpose
    binarization: Binarization | None = None


class _ConfigFile(ActionConfigFile):
    """``--config`` for files anywhere and for the package's recipes by bare name."""

    def __call__(
        self, parser: Any, cfg: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Merge the file into the configuration so far."""
        merge_file(parser, cfg, resolve_recipe(values))


class NamedRun(argparse.Action):
    """An argument that names a run, whose own configuration is what further options change."""

    def __call__(
        self, parser: Any, cfg: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Find the run's folder and merge its configuration into the one so far."""
        if values is None:
            return
        if getattr(cfg, self.dest, None) is not None:
            raise UserError(f"name one run: {getattr(cfg, self.dest)} or {values}")
        folder = RunFolder.find(values)
        setattr(cfg, self.dest, str(folder.path))
        content, allowed = open_config(folder, cfg.get("allow_code") or ())
        if allowed is not None:
            # To the end of the command line, since the parser looks at all values once more there.
            _parsing.get().enter_context(allowed.limiting_parser())
        _merge(parser, cfg, content)


class WarmStart(argparse.Action):
    """An argument that names what a new run starts from: a run's settings are taken too."""

    def __call__(
        self, parser: Any, cfg: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Merge the settings of the run, if it is one, into the configuration so far."""
        folder = run_named_by(values)
        if folder is not None:
            _merge(parser, cfg, settings_of(folder))
        setattr(cfg, self.dest, values)


# What is left when the parser comes to the end of a command line.
_parsing: ContextVar[contextlib.ExitStack] = ContextVar("parsing")


def merge_file(parser: Any, cfg: Any, path: Path) -> None:
    """Merge a configuration file into what a parser has parsed so far."""
    _merge(parser, cfg, read_config(path))


def _merge(parser: Any, cfg: Any, content: Mapping[str, Any]) -> None:
    # As text, since what older versions wrote is read under today's names.
    text = yaml.safe_dump(content, sort_keys=False)
    ActionConfigFile.apply_config(parser, cfg, "config", text)


def add_allow_code(parser: Any) -> None:
    """Add the option that lets a run that was not made here use further packages."""
    parser.add_argument(OPTION, action="append", metavar="PACKAGE", help=HELP)


class _OneOption(argparse.ArgumentParser):
    """Finds one option on a command line, wherever it stands."""

    def error(self, message: str) -> NoReturn:
        option, _, _ = message.removeprefix("argument ").partition(":")
        raise UserError(f"{option} needs a value")


def make_run_parser(prog: str = "bcl", description: str = "") -> LightningArgumentParser:
    """A parser of everything that configures a run; commands add options of their own.

    Args:
        prog: Name of the program in its help, as ``bcl fit``.
        description: What help says that it does.
    """
    parser = LightningArgumentParser(
        prog=prog,
        description=description,
        exit_on_error=False,
        # An abbreviation is a misspelling that happens to be unique today.
        allow_abbrev=False,
        dump_header=[f"bclightning=={__version__}"],
    )
    parser.add_argument(
        "-c",
        "--config",
        action=_ConfigFile,
        help="YAML file, or a recipe by bare name "
        f"({', '.join(recipe_names())}); several are merged, the last one wins.",
    )
    parser.add_argument(
        "--seed_everything", type=int, default=0, help="Seed of everything that is random."
    )
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True, required=False)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    parser.add_class_arguments(RunOptions, None, skip={"warm_start"})
    parser.add_argument(
        _WARM_START,
        metavar="RUN",
        action=WarmStart,
        help="What the first weights come from: a checkpoint, or a run, whose settings are taken "
        "too, and changed by other options.",
    )
    parser.add_class_arguments(WandbOptions, "wandb")
    parser.add_class_arguments(RunPurpose, "purpose")
    parser.set_defaults({f"trainer.{key}": value for key, value in TRAINER_DEFAULTS.items()})
    parser.set_defaults({"model": {"class_path": DEFAULT_MODEL}})
    return parser


def parse_words(
    parser: LightningArgumentParser, words: Sequence[str], run_option: str | None = None
) -> Namespace:
    """Parse a command line.

    Args:
        parser: Parser from `make_run_parser`.
        words: The words after the command.
        run_option: Option that names a run, wherever it stands on the line: all other options
            change the run's own configuration.

    Raises:
        UserError: An option or a value is wrong; one sentence that names it.
    """
    if run_option is not None:
        finder = _OneOption(add_help=False, allow_abbrev=False)
        finder.add_argument(run_option, dest="run", action="append", default=[])
        found, words = finder.parse_known_args(list(words))
        words = [word for run in found.run for word in (run_option, run)] + words
    if any(word.partition("=")[0] == _WARM_START for word in words):
        # Before all that changes its settings.
        finder = _OneOption(add_help=False, allow_abbrev=False)
        finder.add_argument(_WARM_START, dest="start")
        found, words = finder.parse_known_args(list(words))
        words = [f"{_WARM_START}={found.start}", *words]
    if any(word.partition("=")[0] == OPTION for word in words):
        # Before the run, wherever it stands.
        finder = _OneOption(add_help=False, allow_abbrev=False)
        finder.add_argument(OPTION, dest="allow", action="append", default=[])
        found, words = finder.parse_known_args(list(words))
        words = [f"{OPTION}={package}" for package in found.allow] + words
    with _errors_in_one_sentence(parser):
        values = _parse(parser, words)
        if values.model.class_path != DEFAULT_MODEL:
            # The parser would hand what it knows of the default class, such as its learning rate,
            # to another class that has an argument of that name.
            parser.set_defaults({"model": {"class_path": values.model.class_path}})
            values = _parse(parser, words)
        return values


def _parse(parser: LightningArgumentParser, words: Sequence[str]) -> Namespace:
    with contextlib.ExitStack() as stack:
        token = _parsing.set(stack)
        stack.callback(_parsing.reset, token)
        return parser.parse_args(list(words))


@contextlib.contextmanager
def _errors_in_one_sentence(parser: LightningArgumentParser) -> Iterator[None]:
    """Translate the errors of a parser, and of the classes that it builds.

    Raises:
        UserError: An option or a value is wrong.
    """
    try:
        yield
    except (ArgumentError, ValueError, TypeError, MisconfigurationException, ImportError) as error:
        options = option_names(parser)
        raise UserError(format_parser_error(str(error), options)) from error


def option_names(parser: LightningArgumentParser) -> list[str]:
    """The options of a parser, but for those of classes that a configuration names."""
    return [f"--{key}" for key in parser.get_defaults().keys()]  # noqa: SIM118 (a Namespace)


@functools.cache
def _parser(model: str = DEFAULT_MODEL) -> LightningArgumentParser:
    parser = make_run_parser()
    parser.set_defaults({"model": {"class_path": model}})
    return parser


class RunConfig:
    """The resolved configuration of a run, every value of the type that its class asks for.

    Nothing is built before `build`. Make one with `load`, `from_run` or `from_words`.

    Attributes:
        run: Folder of the run that the configuration belongs to; ``None`` for a new run.
        changed: Options that differ from that run's own, as ``--model.momentum``.

    Example:
        >>> config = RunConfig.load("digits.yaml", {"model.learning_rate": 0.01})
        >>> config["model.learning_rate"], config["trainer.max_epochs"]
        (0.01, 50)
    """

    def __init__(
        self, values: Namespace, run: RunFolder | None = None, allowed: AllowedCode | None = None
    ) -> None:
        if allowed is not None:
            allowed.check_parsed(values)
        self._values = values
        self._allowed = allowed
        self.run = run
        self.changed: list[str] = []
        seed = values.seed_everything
        if isinstance(seed, bool) or not min_seed_value <= seed <= max_seed_value:
            raise UserError(
                f"--seed_everything must be an integer from {min_seed_value} to {max_seed_value}, "
                f"and is {str(seed).lower()}"
            )
        if run is not None:
            content, _ = open_config(run, () if allowed is None else allowed.packages)
            recorded = load_limited([content], allowed).plain()
            self.changed = changed_options(recorded, self.plain())
            self._use_data_of_run(recorded, run)

    @classmethod
    def load(cls, *sources: "str | Path | Mapping[str, Any] | RunConfig") -> "RunConfig":
        """Merge sources into a configuration; where two give an option, the later one wins.

        Args:
            sources: Recipes by bare name, paths of YAML files, other configurations, or mappings,
                which may be nested or have dotted keys, as ``{"model.network.regularizer":
                "none"}``.

        Raises:
            UserError: An option or a value is wrong, or a file cannot be read; one sentence.
        """
        origins = [source._allowed for source in sources if isinstance(source, RunConfig)]
        data = [allowed for allowed in origins if allowed is not None]
        return load_limited([_content(source) for source in sources], data[0] if data else None)

    @classmethod
    def from_run(
        cls,
        run: "str | Path | RunFolder",
        *sources: Mapping[str, Any],
        allow_code: Sequence[str] = (),
    ) -> "RunConfig":
        """The configuration of an existing run, which `bclightning.runs.fit` resumes.

        Args:
            run: The run's folder, or its id below ``results/runs``.
            sources: Options that say where things are, as ``{"data.root": "/data"}``.
            allow_code: Packages whose classes the run may use though it was not made here, beside
                bclightning, torch.nn and Lightning.

        Raises:
            UserError: There is no such run, or it names code that is not allowed.
        """
        folder = run if isinstance(run, RunFolder) else RunFolder.find(str(run))
        content, allowed = open_config(folder, allow_code)
        return cls(
            load_limited([content, *map(_content, sources)], allowed)._values, folder, allowed
        )

    @classmethod
    def from_words(cls, words: Sequence[str]) -> "RunConfig":
        """The configuration that a command line describes.

        Args:
            words: Options as ``--trainer.max_epochs=3``, with or without ``--config``.

        Raises:
            UserError: An option or a value is wrong; one sentence that names it.

        Example:
            >>> RunConfig.from_words(["--config", "digits.yaml", "--data.batch_size=20"])["data"]
            Namespace(class_path='bclightning.data.Digits', init_args=Namespace(root=None, \
batch_size=20, eval_batch_size=1000, seed=None))
        """
        return cls(parse_words(_parser(), words))

    @classmethod
    def from_parsed(cls, values: Namespace, own: Sequence[type] = ()) -> "RunConfig":
        """The configuration in what a command's parser has parsed.

        Args:
            values: What `parse_words` returned.
            own: Dataclasses of the command's own options, which are left out.
        """
        values = values.clone()
        named = values.pop("run", None)
        packages = values.pop("allow_code", None) or ()
        for options in own:
            for entry in fields(options):
                values.pop(entry.name, None)
        if named is None:
            return cls(values)
        folder = RunFolder(Path(named))
        _, allowed = open_config(folder, packages)
        return cls(values, folder, allowed)

    def __getitem__(self, key: str) -> Any:
        """An option's value by its dotted name, without the level of ``init_args``."""
        value: Any = self._values
        for name in key.split("."):
            if isinstance(value, Namespace) and name not in value and "init_args" in value:
                value = value["init_args"]
            value = value[name]
        return value

    def of_run(self, folder: RunFolder) -> "RunConfig":
        """The same configuration as that of a run which was made with it.

        Args:
            folder: The run's folder.
        """
        return RunConfig(self._values, folder, self._allowed)

    @property
    def folder(self) -> RunFolder:
        """Folder of the run, which a new run has once it is named."""
        if self.run is not None:
            return self.run
        return RunFolder(Path(self["runs_dir"]) / self["experiment"] / self["run_id"])

    def set_name(self, experiment: str, run_id: str) -> None:
        """Give a new run the names that its folder has."""
        self._values.experiment, self._values.run_id = experiment, run_id

    def _use_data_of_run(self, recorded: Mapping[str, Any], run: RunFolder) -> None:
        arguments = self._values.data.get("init_args") or {}
        of_run = (recorded["data"].get("init_args") or {}).get("root")
        # A folder that is given now is taken as it is.
        if "root" in arguments and arguments["root"] == of_run:
            arguments["root"] = root_of_run(recorded, run.path)

    def plain(self) -> dict[str, Any]:
        """The configuration as plain data: for files, loggers, other processes and `load`.

        Raises:
            UserError: An option has a value that a file cannot hold.
        """
        values = self._values.clone()
        values.pop("config", None)
        with warnings.catch_warnings():
            # What the parser cannot write is looked after below.
            warnings.filterwarnings("ignore", f"(?s).*{_NOT_WRITTEN}")
            # Only the parser knows how each type is written; text is what it writes.
            text = _parser().dump(values, _FORMAT, skip_unset=False, skip_validation=True)
        content: dict[str, Any] = _as_given(yaml.safe_load(text), values.as_dict())
        model = content.get("model") or {}
        if model.get("class_path") == DEFAULT_MODEL:
            content["model"] = model.get("init_args") or {}
        return content

    def check_readable(self) -> None:
        """Make sure that what `write` writes is read as the same configuration again.

        Raises:
            UserError: A run could not be resumed with it; the sentence names the option.
        """
        content = self.plain()
        try:
            again = load_limited([content], self._allowed).plain()
        except UserError as error:
            raise UserError(
                f"the configuration could not be read again to resume the run: {error}"
            ) from error
        # Made again, since parsing changes what it is given.
        for option in changed_options(self.plain(), again):
            raise UserError(
                f"{option} would be another value when the run is resumed, since a file cannot "
                "hold the one that it has; write it in another way"
            )

    def write(self, path: Path) -> None:
        """Write the configuration to a file that ``--config`` reads."""
        plain = self.plain()
        arguments = plain["data"].get("init_args") or {}
        if "root" in arguments:
            arguments["root"] = root_to_write(plain)
        text = f"# bclightning=={__version__}\n{yaml.safe_dump(plain, sort_keys=False)}"
        # What was read as data does not become code by being written again.
        write_text(path, signed(text) if self._allowed is None else text)

    def build(self) -> BuiltRun:
        """Seed the generators, and build the model and the data module.

        Binary layers that `BinaryConnect` or ``--binarization`` asks for are made here already, so
        that the run's name and record say what is trained.

        Raises:
            UserError: A value is wrong that only the classes could check; the message is theirs.
        """
        quiet_lightning()
        seed_everything(self["seed_everything"], workers=True, verbose=False)
        with _errors_in_one_sentence(_parser()):
            with _limiting_parser(self._allowed):
                built = _parser().instantiate(self._values)
            self._trainer = dict(built.trainer)
            callbacks = _as_list(self._trainer["callbacks"])
            if self["binarization"] is not None:
                skip = self["skip"] or []
                patterns = [skip] if isinstance(skip, str) else list(skip)
                callbacks.append(BinaryConnect(self["binarization"], patterns))
            elif self["skip"] is not None:
                raise UserError("--skip says what stays real under --binarization; give that too")
            binary = [callback for callback in callbacks if isinstance(callback, BinaryConnect)]
            late = makes_layers_late(built.model)
            for callback in binary:
                # Late layers are made and converted by `make_late_layers`.
                convert = callback.convert_so_far if late else callback.convert
                convert(built.model)
            self._trainer["callbacks"] = callbacks
        binarization = binary[0].binarization if binary else None
        return BuiltRun(built.model, built.data, built.wandb, built.purpose, binarization)

    def build_trainer(
        self, callbacks: Sequence[Callback] = (), plugins: Sequence[CheckpointIO] = ()
    ) -> Trainer:
        """Build the trainer of the configuration, with what a run adds to it.

        Call `build` first. Callbacks and plugins of the configuration stay. Lightning's default
        logger is left out, since a run has loggers of its own, and so is its progress bar, unless
        the configuration or a callback asks for one.

        Raises:
            UserError: Lightning refuses a setting; the message is its own.
        """
        arguments = dict(self._trainer)
        own = arguments["callbacks"]
        if any(isinstance(callback, ProgressBar) for callback in own):
            # Lightning takes one, and the configuration's is the one that was asked for.
            callbacks = [c for c in callbacks if not isinstance(c, ProgressBar)]
        arguments["callbacks"] = [*own, *callbacks]
        arguments["plugins"] = [*_as_list(arguments["plugins"]), *plugins]
        arguments["logger"] = _as_list(arguments["logger"]) or False
        if arguments["enable_progress_bar"] is None:
            arguments["enable_progress_bar"] = any(
                isinstance(callback, ProgressBar) for callback in arguments["callbacks"]
            )
        return self._trainer_of(arguments)

    def build_evaluation_trainer(self, callbacks: Sequence[Callback] = ()) -> Trainer:
        """Build a trainer for one evaluation on one device, without callbacks but `callbacks`."""
        kept = ("accelerator", "precision", "inference_mode", "limit_test_batches")
        return self._trainer_of(
            {
                **{key: self._trainer[key] for key in kept},
                "devices": 1,
                "logger": False,
                "callbacks": list(callbacks),
                "enable_checkpointing": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
            }
        )

    @staticmethod
    def _trainer_of(arguments: dict[str, Any]) -> Trainer:
        nodes = arguments.get("num_nodes", 1)
        alone = first_if_alone(arguments["devices"], nodes, os.environ)
        arguments["plugins"] = [*_as_list(arguments.get("plugins")), *alone]
        with _errors_in_one_sentence(_parser()), lightning_errors():
            return Trainer(**arguments)


def _content(source: "str | Path | Mapping[str, Any] | RunConfig") -> dict[str, Any]:
    match source:
        case RunConfig():
            return source.plain()
        case Mapping():
            return dict(home_expanded(dict(source)))
    return read_config(resolve_recipe(str(source)))


def load_limited(contents: Sequence[dict[str, Any]], allowed: AllowedCode | None) -> RunConfig:
    """Merge plain data into a configuration that may name what is allowed; all if ``None``."""
    with _limiting_parser(allowed):
        values = _merged(_parser(), contents or [{}])
        if values.model.class_path != DEFAULT_MODEL:
            # See `parse_words`.
            values = _merged(_parser(values.model.class_path), contents)
    return RunConfig(values, allowed=allowed)


def _limiting_parser(allowed: AllowedCode | None) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if allowed is None else allowed.limiting_parser()


def _merged(parser: LightningArgumentParser, contents: Sequence[dict[str, Any]]) -> Namespace:
    values: Namespace | None = None
    with _errors_in_one_sentence(parser):
        for content in contents:
            values = parser.parse_object(content, values)
    if values is None:
        raise ValueError("a configuration needs at least one source")
    return values


def _as_given(written: Any, value: Any, option: str = "-") -> Any:
    """What was written, but a text or a mapping that was taken for another type is as it was.

    The parser writes a value by the first type of a union, be it a function or a duration.

    Raises:
        UserError: A value could not be written.
    """
    match written, value:
        case dict(), dict():
            return {
                key: _as_given(inner, value.get(key), f"{option}.{key}")
                for key, inner in written.items()
            }
        case list(), list() | tuple() if len(written) == len(value):
            pairs = enumerate(zip(written, value, strict=True))
            return [_as_given(*pair, f"{option}.{place}") for place, pair in pairs]
        case str(), str() | dict() if written.startswith(_NOT_WRITTEN) or written == str(value):
            return value
        case str(), _ if written.startswith(_NOT_WRITTEN):
            name = option.replace(".init_args", "").replace("-.", "--")
            raise UserError(
                f"{name} is a {type(value).__name__}, which a file cannot hold, so that the run "
                "could not be resumed; write it as class_path and init_args, or, if it is a "
                "callback, give it to fit(..., callbacks=[...])"
            )
    return written


def _as_list(value: Any) -> list[Any]:
    # Lightning takes one object, a list, None, or a bool for its default or none.
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
