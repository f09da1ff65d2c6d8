"""What a sweep is, as data: recipe, methods, space, budget. Light to read: no torch, no Optuna."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from bclightning.errors import UserError, nearest
from bclightning.runs.folder import checked_name

METHODS = ("none", "dropout", "deterministic", "stochastic")

PrunerName = Literal["none", "median", "successive_halving"]

# Longest names that fit in a run's 64 characters beside "-t0000" and "-s0000".
_NAME_LENGTH = 56

_OPTION = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`.

    Attributes:
        low: The least.
        high: The greatest.
        log: Whether to search by ratios rather than differences.
        step: Distance of the values; none for all of them.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """Least and greatest."""
        return self.low, self.high


@dataclass(frozen=True)
class Choices:
    """One of some values.

    Attributes:
        choices: The values.
    """

    choices: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """All of them: each may be the one that is refused."""
        return self.choices


@dataclass(frozen=True)
class Pruner:
    """When to stop a trial that does worse than others did by then.

    Attributes:
        name: ``none``, ``median`` or ``successive_halving``.
        warmup_epochs: Epochs before which no trial is stopped.
    """

    name: PrunerName = "none"
    warmup_epochs: int = 1


@dataclass(frozen=True)
class Definition:
    """A sweep, checked as far as it can be without building a network.

    Attributes:
        recipe: The configuration that all runs start from, by bare name or path.
        arms: What is compared: options of each arm by its name.
        space: What is searched for, the same for each arm.
        overrides: Options that hold for all runs.
        trials: Trials of each arm.
        final_seeds: Runs of each arm's best setting, each with a seed of its own.
        seed: Of the sampler and of the trials; the final runs have the seeds that follow it.
        pruner: When to stop a trial early.
        name: Of the sweep and the folder of its runs.
        description: What it is for.
    """

    recipe: str
    arms: dict[str, dict[str, Any]]
    space: dict[str, Range | Choices] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    trials: int = 0
    final_seeds: int = 3
    seed: int = 0
    pruner: Pruner = field(default_factory=Pruner)
    name: str = ""
    description: str = ""

    @classmethod
    def read(cls, path: Path) -> "Definition":
        """Read a definition from a YAML file.

        Raises:
            UserError: The file is missing or malformed; one sentence that names what is wrong.
        """
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(f"there is no sweep definition {path}") from error
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path} is not a readable YAML file: {reason}") from error
        try:
            return cls.parse(content, path.stem)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    @classmethod
    def parse(cls, content: Any, name: str) -> "Definition":
        """Make a definition of plain data.

        Args:
            content: What the YAML file holds.
            name: The sweep's name where `content` gives none.

        Raises:
            UserError: Something is unknown, missing or impossible.

        Example:
            >>> content = {"recipe": "digits.yaml", "methods": ["none", "stochastic"]}
            >>> Definition.parse(content, "digits").arms["stochastic"]
            {'model.network.regularizer': 'stochastic'}
        """
        known = {entry.name for entry in fields(cls)} - {"arms"} | {"methods"}
        given = _mapping(content, "a sweep definition", known)
        for key in ("recipe", "methods"):
            if key not in given:
                raise UserError(f"{key} is missing")
        definition = cls(
            recipe=_text(given["recipe"], "recipe"),
            arms=_arms(given["methods"]),
            space={
                _option(key, "space"): _distribution(value, f"space: {key}")
                for key, value in _mapping(given.get("space") or {}, "space").items()
            },
            overrides=_options(given.get("overrides") or {}, "overrides"),
            trials=_count(given.get("trials", 0), "trials", 0),
            final_seeds=_count(given.get("final_seeds", 3), "final_seeds", 0),
            seed=_count(given.get("seed", 0), "seed", 0),
            pruner=_pruner(given.get("pruner", "none")),
            name=checked_name(_text(given.get("name", name), "name"), "the sweep's name"),
            description=_text(given.get("description", ""), "description"),
        )
        definition._check()
        return definition

    def _check(self) -> None:
        if self.space and not self.trials:
            raise UserError("there is a space to search, and no trials to search it with")
        if self.trials and not self.space:
            raise UserError("there are trials, and no space for them to search")
        if not self.trials and not self.final_seeds:
            raise UserError("there is nothing to do: give trials, final_seeds or both")
        for arm, options in self.arms.items():
            if len(f"{self.name}-{arm}") > _NAME_LENGTH:
                raise UserError(f"the names {self.name} and {arm} are too long together")
            for key in self.space:
                if key in options or key in self.overrides:
                    raise UserError(f"{key} is both searched for and fixed")
            for key in options:
                if key in self.overrides:
                    raise UserError(f"{key} is fixed for {arm} and for all methods")
        if "seed_everything" in {*self.space, *self.overrides, *_inner_keys(self.arms)}:
            raise UserError("seed_everything is given by seed and final_seeds")

    def plain(self) -> dict[str, Any]:
        """The definition as plain data, which `parse` reads."""
        space: dict[str, Any] = {}
        for key, value in self.space.items():
            match value:
                case Choices():
                    space[key] = {"choices": list(value.choices)}
                case Range():
                    space[key] = {"low": value.low, "high": value.high, "log": value.log}
                    if value.step is not None:
                        space[key]["step"] = value.step
        return {
            "name": self.name,
            "description": self.description,
            "recipe": self.recipe,
            "methods": {arm: dict(options) for arm, options in self.arms.items()},
            "space": space,
            "overrides": dict(self.overrides),
            "trials": self.trials,
            "final_seeds": self.final_seeds,
            "seed": self.seed,
            "pruner": {"name": self.pruner.name, "warmup_epochs": self.pruner.warmup_epochs},
        }

    def fingerprint(self, recipe_text: str) -> dict[str, Any]:
        """What must not change while a sweep goes on, by the name of what the user would change.

        The numbers of trials and of final seeds may grow.

        Args:
            recipe_text: The recipe's content.
        """
        plain = self.plain()
        kept = ("methods", "space", "overrides", "seed", "pruner")
        digest = hashlib.sha256(recipe_text.encode()).hexdigest()[:16]
        fingerprint = {"recipe": digest, **{key: plain[key] for key in kept}}
        # As it comes back from a storage.
        return dict(json.loads(json.dumps(fingerprint)))


def as_arguments(options: Mapping[str, Any]) -> list[str]:
    """Options as a command line.

    Example:
        >>> as_arguments({"trainer.max_epochs": 3, "model.network.regularizer": "none"})
        ['--trainer.max_epochs=3', '--model.network.regularizer=none']
    """
    return [
        f"--{key}={value if isinstance(value, str) else json.dumps(value)}"
        for key, value in options.items()
    ]


def _inner_keys(arms: Mapping[str, Mapping[str, Any]]) -> set[str]:
    return {key for options in arms.values() for key in options}


def _mapping(value: Any, what: str, known: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{what} must be a mapping of names to values")
    for key in value:
        if known is not None and key not in known:
            raise UserError(
                f"{what} has no key {key!r}{nearest(key, known)}; "
                f"the keys are {', '.join(sorted(known))}"
            )
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{what} must be text, and is {value!r}")
    return value


def _count(value: Any, what: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{what} must be a whole number of at least {least}, and is {value!r}")
    return value


def _number(value: Any, what: str) -> float:
    if isinstance(value, str):
        # YAML takes 1e-3, without a point, for text.
        try:
            value = float(value)
        except ValueError:
            raise UserError(f"{what} must be a number, and is {value!r}") from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{what} must be a number, and is {value!r}")
    return value


def _option(key: str, what: str) -> str:
    if not _OPTION.fullmatch(key):
        raise UserError(
            f"{what}: {key!r} is not an option's name, as model.learning_rate, without dashes"
        )
    return key


def _options(value: Any, what: str) -> dict[str, Any]:
    return {_option(key, what): inner for key, inner in _mapping(value, what).items()}


def _arms(value: Any) -> dict[str, dict[str, Any]]:
    if isinstance(value, list):
        for method in value:
            if method not in METHODS:
                raise UserError(
                    f"there is no method {method!r}{nearest(str(method), METHODS)}; the methods "
                    f"are {', '.join(METHODS)}, or a mapping of your own names to options"
                )
        if len(set(value)) < len(value):
            raise UserError("a method is there twice")
        arms = {method: {"model.network.regularizer": method} for method in value}
    else:
        arms = {
            checked_name(arm, "a method's name"): _options(options or {}, f"methods: {arm}")
            for arm, options in _mapping(value, "methods").items()
        }
    if not arms:
        raise UserError("methods is empty")
    return arms


def _distribution(value: Any, what: str) -> Range | Choices:
    given = _mapping(value, what, {"low", "high", "log", "step", "choices"})
    if "choices" in given:
        choices = given["choices"]
        if len(given) > 1 or not isinstance(choices, list) or not choices:
            raise UserError(f"{what}: choices must be a list of values, and stand alone")
        if not all(isinstance(choice, bool | int | float | str | None) for choice in choices):
            raise UserError(f"{what}: each choice must be a number, text, true, false or null")
        return Choices(tuple(choices))
    for end in ("low", "high"):
        if end not in given:
            raise UserError(f"{what}: give low and high, or choices")
    low, high = (_number(given[end], f"{what}: {end}") for end in ("low", "high"))
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise UserError(f"{what}: log must be true or false, and is {log!r}")
    step = None if given.get("step") is None else _number(given["step"], f"{what}: step")
    if low > high:
        raise UserError(f"{what}: low ({low}) is more than high ({high})")
    if log and low <= 0:
        raise UserError(f"{what}: a logarithmic range must begin above 0, and low is {low}")
    if step is not None and (step <= 0 or log):
        raise UserError(f"{what}: a step must be above 0, and goes with no logarithmic range")
    return Range(low, high, log, step)


def _pruner(value: Any) -> Pruner:
    given = {"name": value} if isinstance(value, str) else value
    given = _mapping(given, "pruner", {"name", "warmup_epochs"})
    name = given.get("name")
    names: tuple[PrunerName, ...] = get_args(PrunerName)
    for known in names:
        if name == known:
            return Pruner(known, _count(given.get("warmup_epochs", 1), "pruner: warmup_epochs", 0))
    raise UserError(
        f"there is no pruner {name!r}{nearest(str(name), names)}; the pruners are "
        f"{', '.join(names)}"
    )
