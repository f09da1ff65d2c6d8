"""The record of a run: everything that a comparison, an export or a repetition needs."""

import json
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict, get_type_hints

from bclightning.errors import MachineError, UserError
from bclightning.runs.folder import checked_name
from bclightning.runs.json_types import AnyFloat, WrongTypeError, checker
from bclightning.seeds import SEEDING
from bclightning.storage import write_text
from bclightning.vocabulary import TEST_ERROR, VAL_ERROR, MonitorMode, Stage, Status

FORMAT = 2

# Fields of format 1, by the names that format 2 gives them.
_RENAMED = {
    "method": "regularizer",
    "settings": "hyperparameters",
    "validation_error": "best_score",
    "chosen": "evaluation",
}
_RENAMED_IN_TEST = {"error": "value", "members": "ensemble_size"}


class _TestResult(TypedDict):
    weights: str
    batch_norm: str
    value: AnyFloat
    ensemble_size: NotRequired[int]


class _Evaluation(TypedDict, total=False):
    weights: str
    batch_norm: str


class _Code(TypedDict):
    commit: str
    dirty: bool


class _WarmStart(TypedDict):
    sha256: str
    epoch: NotRequired[int]
    run_id: NotRequired[str]
    experiment: NotRequired[str]


class _Part(TypedDict):
    started: str
    versions: dict[str, str]
    git: _Code | None
    machine: dict[str, Any]


@dataclass
class RunRecord:
    """The record of a run, ``run.json`` in its folder.

    Attributes:
        run_id: Name of the run, unique in its experiment.
        experiment: Group that the run belongs to.
        regularizer: ``none``, ``dropout``, ``deterministic`` or ``stochastic``.
        data: Name of the data set.
        seed: Seed of everything.
        epochs: Number of epochs asked for.
        arm: Arm of the sweep that the run belongs to; empty outside of sweeps.
        stage: What the run is for; tuning runs do not touch the test set.
        trial: Number of the sweep's trial.
        hyperparameters: The configuration, flat, as ``{"model.learning_rate": 0.001}``, without the
            seed and without names and places: runs that agree in it differ by chance alone.
        status: ``running`` until the run ends; a killed run stays so.
        reason: Why it failed or was interrupted.
        monitor: Metric that chose the best epoch.
        monitor_mode: Whether the lowest (``min``) or the highest value (``max``) is the best.
        best_epoch: Epoch with the best value of `monitor`, counted from 0 as in metrics.csv.
        best_score: Value of `monitor` at that epoch; ``val/error`` is in percent.
        test_metric: Metric that `test` holds the values of.
        test: Test results at the best epoch: ``weights``, ``batch_norm``, ``value``, and the
            ``ensemble_size`` of an ensemble.
        evaluation: The evaluation weights and batch-norm statistics that stand for the run.
        split_sizes: Number of images by split.
        checksums: Checksum of each data file, or of the list of them.
        binary_weights: Number of weights that take one bit each.
        real_weights: Number of other parameters.
        float_bytes: Size with every parameter in 32 bits.
        packed_bytes: Size with one bit for each binary weight.
        versions: Versions of this package, of Python and of the libraries.
        git: Commit and dirty flag of the code, ``None`` outside a repository.
        machine: Device, processor and threads.
        warm_start: Where the first weights come from, if they were not drawn: ``sha256`` and
            ``epoch`` of the checkpoint, ``run_id`` and ``experiment`` of the run that wrote it.
        parts: For a run that was resumed: start, versions, code and machine of each later part that
            differs in them from the part before it.
        wandb: Mode and id of the W&B run.
        started: Start of the run, ISO 8601 with time zone.
        finished: End of the run.
        train_seconds: Time in training and validation, over all parts of a resumed run.
        seeding: Version of how random numbers were derived from the seed
            (`bclightning.seeds.RunSeeds`): 1 in records of format 1.
        format: Version of this format.

    Example:
        >>> record = RunRecord(run_id="a", experiment="e", regularizer="none", data="d", seed=0)
        >>> record.status, record.arm_name
        ('running', 'none')
    """

    run_id: str
    experiment: str
    regularizer: str
    data: str
    seed: int
    epochs: int = 0
    arm: str = ""
    stage: Stage = "train"
    trial: int | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    status: Status = "running"
    reason: str = ""
    monitor: str = VAL_ERROR
    monitor_mode: MonitorMode = "min"
    best_epoch: int | None = None
    best_score: AnyFloat | None = None
    test_metric: str = TEST_ERROR
    test: Annotated[list[dict[str, Any]], list[_TestResult]] = field(default_factory=list)
    evaluation: Annotated[dict[str, str], _Evaluation] = field(default_factory=dict)
    split_sizes: dict[str, int] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)
    binary_weights: int = 0
    real_weights: int = 0
    float_bytes: int = 0
    packed_bytes: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    git: Annotated[dict[str, Any] | None, _Code | None] = None
    machine: dict[str, Any] = field(default_factory=dict)
    warm_start: Annotated[dict[str, Any] | None, _WarmStart | None] = None
    parts: Annotated[list[dict[str, Any]], list[_Part]] = field(default_factory=list)
    wandb: dict[str, str] = field(default_factory=dict)
    started: str = ""
    finished: str = ""
    train_seconds: float = 0.0
    seeding: int = SEEDING
    format: int = FORMAT

    @property
    def arm_name(self) -> str:
        """Name of the arm of a comparison that the run belongs to: its own, or its regularizer."""
        return self.arm or self.regularizer

    @property
    def test_value(self) -> float | None:
        """The test result under the evaluation that stands for the run."""
        return self.tested_with(self.evaluation.get("weights", ""))

    def tested_with(self, weights: str, batch_norm: str | None = None) -> float | None:
        """The test result with some evaluation weights.

        Args:
            weights: ``binary``, ``real`` or ``ensemble``.
            batch_norm: ``as trained`` or ``re-estimated``; those of `evaluation` if ``None``.

        Returns:
            The value of `test_metric`, or ``None`` where it was not measured.
        """
        statistics = batch_norm or self.evaluation.get("batch_norm")
        for entry in self.test:
            if (entry["weights"], entry["batch_norm"]) == (weights, statistics):
                return float(entry["value"])
        return None

    def in_each_part(self, name: Literal["versions", "git", "machine"]) -> list[Any]:
        """What the record says of each part of the run, the first one first.

        Example:
            >>> record = RunRecord("a", "e", "none", "d", seed=0, machine={"device": "cpu"})
            >>> record.in_each_part("machine")
            [{'device': 'cpu'}]
        """
        return [getattr(self, name), *(part[name] for part in self.parts)]

    def resume_from(self, before: "RunRecord") -> None:
        """Keep what is known of the run's earlier parts, where this describes one more.

        Args:
            before: The record as the last part left it.
        """
        here = {"versions": self.versions, "git": self.git, "machine": self.machine}
        first = {"versions": before.versions, "git": before.git, "machine": before.machine}
        last = before.parts[-1] if before.parts else first
        self.parts = list(before.parts)
        if any(last[key] != value for key, value in here.items()):
            self.parts.append({"started": self.started, **here})
        self.started = before.started
        self.warm_start = before.warm_start
        self.versions, self.git, self.machine = before.versions, before.git, before.machine

    def check(self, where: str) -> None:
        """See that each field is of its type.

        Args:
            where: Where the record comes from, for the error message.

        Raises:
            UserError: A field is of another type.
        """
        try:
            for name, check in _CHECKS.items():
                check(getattr(self, name), name)
        except WrongTypeError as error:
            raise _incomplete(where, str(error)) from error

    def write(self, path: Path) -> None:
        """Write the record, whole or not at all."""
        write_text(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> "RunRecord":
        """Read a record of this format or an earlier one.

        Raises:
            UserError: The file is missing, half-written or of a later format, or a field of it is
                missing or of another type.
            MachineError: The file cannot be read.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(f"there is no run record {path}") from error
        except OSError as error:
            raise MachineError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise _incomplete(str(path), "it is not JSON") from error
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: Any, where: str = "a run record") -> "RunRecord":
        """Make a record of plain data, of this format or an earlier one.

        Args:
            content: The record as plain data.
            where: Where it comes from, for the error message.

        Raises:
            UserError: A field is missing or of another type, the format is a later one, or the name
                of the run or the experiment is not a valid name.
        """
        try:
            content = _of_this_format(content, where)
            record = cls(**{key: content[key] for key in _CHECKS if key in content})
        except WrongTypeError as error:
            raise _incomplete(where, str(error)) from error
        # They become names of folders.
        checked_name(record.run_id, f"run_id in {where}")
        checked_name(record.experiment, f"experiment in {where}")
        return record


_CHECKS = {
    name: checker(hint) for name, hint in get_type_hints(RunRecord, include_extras=True).items()
}

_NEEDED = [
    entry.name
    for entry in fields(RunRecord)
    if entry.default is MISSING and entry.default_factory is MISSING
]


def _incomplete(where: str, what: str) -> UserError:
    return UserError(f"{where} is not a complete run record: {what}; remove it or run again")


def _of_this_format(content: Any, where: str) -> dict[str, Any]:
    """The fields of a record under today's names, each checked."""
    if type(content) is not dict:
        raise WrongTypeError("it must be a JSON object")
    if "format" not in content:
        raise WrongTypeError("format is missing")
    version = content["format"]
    _CHECKS["format"](version, "format")
    if version < 1:
        raise WrongTypeError(f"format must be a whole number from 1 on, and it is {version}")
    if version > FORMAT:
        raise UserError(
            f"{where} has format {version}, and this version reads formats up to {FORMAT}; "
            "install a newer bclightning"
        )
    if version < FORMAT:
        content = _of_format_1(content)
    for name in _NEEDED:
        if name not in content:
            raise WrongTypeError(f"{name} is missing")
    for name, check in _CHECKS.items():
        if name in content:
            check(content[name], name)
    return content


def _of_format_1(content: dict[str, Any]) -> dict[str, Any]:
    """A record of format 1 under today's names."""
    renamed = {_RENAMED.get(key, key): value for key, value in content.items()}
    renamed |= {"seeding": 1, "format": FORMAT}
    test = renamed.get("test")
    if type(test) is list:
        renamed["test"] = [
            {_RENAMED_IN_TEST.get(key, key): value for key, value in entry.items()}
            if type(entry) is dict
            else entry
            for entry in test
        ]
    return renamed
