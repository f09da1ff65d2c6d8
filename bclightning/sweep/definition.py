"""What a sweep is, as data: recipe, arms, space, budget. Imports neither torch nor Optuna."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from bclightning.errors import UserError, nearest
from bclightning.runs.folder import checked_name
from bclightning.storage import expanded
from bclightning.vocabulary import REGULARIZERS
from bclightning.yaml_files import read_yaml

PrunerName = Literal["none", "median", "successive_halving"]

# A run's name has at most 64 characters, and "-t0000" or "-s0000" comes behind these.
MAX_NAME_LENGTH = 56

# A sweep's trials are made when it is prepared, at some milliseconds each.
MAX_TRIALS = 10_000

# The greatest seed that a final run can have.
MAX_SEED = 2**31 - 1

# The greatest whole number that a search can tell from its neighbours.
MAX_NUMBER = 2**53

# The name that definitions, and fingerprints of sweeps that were begun, had for the arms.
_OLDER_ARMS = "methods"

_OPTION = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`.

    Attributes:
        low: Lowest value.
        high: Highest value.
        log: Whether values are drawn on a logarithmic scale.
        step: Distance between two values; ``None`` for any value in the range.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest value."""
        return self.low, self.high


@dataclass(frozen=True)
class Choices:
    """One of some values.

    Attributes:
        choices: Values to choose from.
    """

    choices: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """All choices: each may be the one that is refused."""
        return self.choices


@dataclass(frozen=True)
class Pruner:
    """When to stop a trial that does worse than others did at the same epoch.

    Attributes:
        name: ``none``, ``median`` or ``successive_halving``.
        warmup_epochs: First epoch, counted from 1, after which a trial may be stopped.
    """

    name: PrunerName = "none"
    warmup_epochs: int = 1


@dataclass(frozen=True)
class Definition:
    """A sweep, checked as far as it can be without building a network.

    Attributes:
        recipe: Configuration that all runs start from, by bare name or path.
        arms: What is compared: the options of each arm by the arm's name.
        space: Options to search, the same for each arm.
        overrides: Options of all runs.
        trials: Number of trials of each arm.
        final_seeds: Number of final runs of each arm's best setting, each with its own seed.
        seed: Seed of the sampler and of the trials; the final runs have the seeds that follow it.
        pruner: When to stop a trial early.
        name: Name of the sweep and of the folder of its runs.
        description: What the sweep is for.
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

    @property
    def choices(self) -> list[Any]:
        """All values of the space that are chosen from a list."""
        return [
            choice
            for spec in self.space.values()
            if isinstance(spec, Choices)
            for choice in spec.choices
        ]

    @classmethod
    def load(cls, source: "Definition | Mapping[str, Any] | str | Path") -> "Definition":
        """Make a definition of whatever describes one.

        Args:
            source: A definition, a mapping with the keys of the YAML file and a ``name``, the path
                of a YAML file, or the bare name of a shipped definition.

        Raises:
            UserError: There is no such file, or something in it is unknown, missing or impossible.

        Example:
            >>> Definition.load({"name": "mine", "recipe": "digits.yaml", "arms": ["none"]}).name
            'mine'
        """
        match source:
            case Definition():
                return source
            case Mapping():
                if "name" not in source:
                    raise UserError(
                        "name is missing: the folder of the sweep's runs is named after it"
                    )
                return cls.parse(dict(source), "")
            case _:
                return cls.read(_resolve(str(source)))

    @classmethod
    def read(cls, path: Path) -> "Definition":
        """Read a definition from a YAML file.

        Raises:
            UserError: The file is missing or malformed; one sentence that names what is wrong.
        """
        if not path.exists():
            raise UserError(f"there is no sweep definition {path}")
        content = read_yaml(path)
        try:
            return cls.parse(content, path.stem)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    @classmethod
    def parse(cls, content: Any, name: str) -> "Definition":
        """Make a definition of plain data.

        Args:
            content: What the YAML file contains.
            name: The sweep's name if `content` gives none.

        Raises:
            UserError: Something is unknown, missing or impossible.

        Example:
            >>> content = {"recipe": "digits.yaml", "arms": ["none", "stochastic"]}
            >>> Definition.parse(content, "digits").arms["stochastic"]
            {'model.network.regularizer': 'stochastic'}
        """
        given = _mapping(content, "a sweep definition")
        if _OLDER_ARMS in given and "arms" not in given:
            given = {"arms" if key == _OLDER_ARMS else key: value for key, value in given.items()}
        given = _mapping(given, "a sweep definition", {entry.name for entry in fields(cls)})
        for key in ("recipe", "arms"):
            if key not in given:
                raise UserError(f"{key} is missing")
        definition = cls(
            recipe=_text(given["recipe"], "recipe"),
            arms=_arms(given["arms"]),
            space={
                _option(key, "space"): _distribution(value, f"space: {key}")
                for key, value in _mapping(given.get("space") or {}, "space").items()
            },
            overrides=_options(given.get("overrides") or {}, "overrides"),
            trials=_count(given.get("trials", 0), "trials", 0, MAX_TRIALS),
            final_seeds=_count(given.get("final_seeds", 3), "final_seeds", 0, MAX_TRIALS),
            # The final runs' seeds follow it.
            seed=_count(given.get("seed", 0), "seed", 0, MAX_SEED - MAX_TRIALS),
            pruner=_pruner(given.get("pruner", "none")),
            name=checked_name(_text(given.get("name", name), "name"), "the sweep's name"),
            description=_text(given.get("description", ""), "description"),
        )
        definition._check()
        return definition

    def _check(self) -> None:
        if self.space and not self.trials:
            raise UserError("there is a space to search, but trials is 0")
        if self.trials and not self.space:
            raise UserError("there are trials, but no space for them to search")
        if not self.trials and not self.final_seeds:
            raise UserError("there is nothing to do: give trials, final_seeds or both")
        for arm, options in self.arms.items():
            if len(f"{self.name}-{arm}") > MAX_NAME_LENGTH:
                raise UserError(
                    f"the names {self.name} and {arm} are too long together: a run's name, "
                    f"{self.name}-{arm} and a number, has at most 64 characters"
                )
            for key in self.space:
                if key in options or key in self.overrides:
                    raise UserError(f"{key} is in space, and also has a fixed value")
            for key in options:
                if key in self.overrides:
                    raise UserError(f"{key} is set for the arm {arm} and in overrides")
        if "seed_everything" in {*self.space, *self.overrides, *_inner_keys(self.arms)}:
            raise UserError("seed_everything is set by seed and final_seeds; leave it out")

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
            "arms": {arm: dict(options) for arm, options in self.arms.items()},
            "space": space,
            "overrides": dict(self.overrides),
            "trials": self.trials,
            "final_seeds": self.final_seeds,
            "seed": self.seed,
            "pruner": {"name": self.pruner.name, "warmup_epochs": self.pruner.warmup_epochs},
        }

    def fingerprint(
        self, recipe_text: str, files: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """What must stay the same when a sweep is resumed, by the names of the definition's keys.

        The numbers of trials and of final seeds may grow.

        Args:
            recipe_text: The recipe's content.
            files: Checksums of the files that the recipe and the definition name, by their paths.
        """
        plain = self.plain()
        kept = ("arms", "space", "overrides", "seed", "pruner")
        digest = hashlib.sha256(recipe_text.encode()).hexdigest()[:16]
        fingerprint: dict[str, Any] = {"recipe": digest, **{key: plain[key] for key in kept}}
        if files:
            fingerprint["files"] = dict(files)
        # As it comes back from a storage.
        return dict(json.loads(json.dumps(fingerprint)))


def changed_keys(stored: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> list[str]:
    """The keys in which two fingerprints differ.

    Args:
        stored: Fingerprint of a sweep that was begun, by this version or an earlier one.
        fingerprint: Fingerprint of the definition that is to resume it.

    Example:
        >>> changed_keys({"methods": {"none": {}}, "seed": 0}, {"arms": {"none": {}}, "seed": 1})
        ['seed']
    """
    there = {"arms" if key == _OLDER_ARMS else key: value for key, value in stored.items()}
    return [key for key in fingerprint if there.get(key) != fingerprint[key]]


def shipped_definitions() -> dict[str, Path]:
    """The definitions that come with the package, by bare name; none where they are not installed.

    Example:
        >>> "digits" in shipped_definitions()
        True
    """
    package = Path(str(resources.files("bclightning")))
    # In a wheel they lie in the package, in a checkout beside it.
    for folder in (package / "sweeps", package.parent / "sweeps"):
        if found := sorted(folder.glob("*.yaml")):
            return {path.stem: path for path in found}
    return {}


def _resolve(name: str) -> Path:
    """The file that `name` means: a path as it is, else a shipped definition."""
    path = expanded(name)
    if path.is_file():
        return path
    shipped = shipped_definitions()
    bare = name.removesuffix(".yaml")
    if bare in shipped:
        return shipped[bare]
    known = f"; the shipped ones are {', '.join(shipped)}" if shipped else ""
    raise UserError(f"there is no sweep definition {name}{nearest(bare, shipped)}{known}")


def _inner_keys(arms: Mapping[str, Mapping[str, Any]]) -> set[str]:
    return {key for options in arms.values() for key in options}


def _mapping(value: Any, what: str, known: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{what} must be a mapping of names to values")
    for key in value:
        if known is not None and key not in known:
            raise UserError(
                f"{what} has no key {key!r}{nearest(key, known)}; "
                f"its keys are {', '.join(sorted(known))}"
            )
    return value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{what} must be text, got {value!r}")
    return value


def _count(value: Any, what: str, minimum: int, maximum: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise UserError(f"{what} must be an integer of at least {minimum}, got {value!r}")
    if maximum is not None and value > maximum:
        raise UserError(f"{what} must be at most {maximum}, got {value!r}")
    return value


def _number(value: Any, what: str) -> float:
    if isinstance(value, str):
        # YAML reads 1e-3, without a decimal point, as text.
        try:
            value = float(value)
        except ValueError:
            raise UserError(f"{what} must be a number, got {value!r}") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{what} must be a number, got {value!r}")
    if isinstance(value, int) and abs(value) > MAX_NUMBER:
        raise UserError(f"{what}: a whole number must be at most {MAX_NUMBER}, got {value!r:.40}")
    if not math.isfinite(value):
        raise UserError(f"{what} must be a number, got {value!r}")
    return value


def _option(key: str, what: str) -> str:
    if not _OPTION.fullmatch(key):
        raise UserError(
            f"{what}: {key!r} is not the name of an option; write it as model.learning_rate, "
            "without dashes"
        )
    return key


def _options(value: Any, what: str) -> dict[str, Any]:
    options = {_option(key, what): inner for key, inner in _mapping(value, what).items()}
    for key, inner in options.items():
        try:
            json.dumps(inner)
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError(
                f"{what}: {key} must be text, a number, true, false, null, or a list or mapping of "
                f"those ({error})"
            ) from error
    return options


def _arms(value: Any) -> dict[str, dict[str, Any]]:
    if isinstance(value, list):
        for regularizer in value:
            if regularizer not in REGULARIZERS:
                raise UserError(
                    f"there is no regularizer {regularizer!r}"
                    f"{nearest(str(regularizer), REGULARIZERS)}; arms is a list of regularizers "
                    f"({', '.join(REGULARIZERS)}) or a mapping of names to options"
                )
        if len(set(value)) < len(value):
            raise UserError("arms names a regularizer twice")
        arms = {name: {"model.network.regularizer": name} for name in value}
    else:
        arms = {
            checked_name(arm, "the name of an arm"): _options(options or {}, f"arms: {arm}")
            for arm, options in _mapping(value, "arms").items()
        }
    if not arms:
        raise UserError("arms is empty")
    return arms


def _distribution(value: Any, what: str) -> Range | Choices:
    given = _mapping(value, what, {"low", "high", "log", "step", "choices"})
    if "choices" in given:
        choices = given["choices"]
        if len(given) > 1 or not isinstance(choices, list) or not choices:
            raise UserError(f"{what}: choices must be a list of values, without other keys")
        if not all(_is_plain(choice) for choice in choices):
            raise UserError(f"{what}: each choice must be a number, text, true, false or null")
        return Choices(tuple(choices))
    for end in ("low", "high"):
        if end not in given:
            raise UserError(f"{what}: give low and high, or choices")
    low, high = (_number(given[end], f"{what}: {end}") for end in ("low", "high"))
    log = given.get("log", False)
    if not isinstance(log, bool):
        raise UserError(f"{what}: log must be true or false, got {log!r}")
    step = None if given.get("step") is None else _number(given["step"], f"{what}: step")
    if low > high:
        raise UserError(f"{what}: low ({low}) is greater than high ({high})")
    if log and low <= 0:
        raise UserError(f"{what}: with log, low must be greater than 0, got {low}")
    if step is not None and (step <= 0 or log):
        raise UserError(f"{what}: step must be greater than 0, and cannot be combined with log")
    if isinstance(low, int) and isinstance(high, int) and step is not None and step % 1:
        raise UserError(
            f"{what}: between the whole numbers {low} and {high} step must be a whole number, got "
            f"{step}; write low as {float(low)} for a search of all numbers"
        )
    return Range(low, high, log, step)


def _is_plain(choice: Any) -> bool:
    if isinstance(choice, float):
        return math.isfinite(choice)
    return choice is None or isinstance(choice, bool | int | str)


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
