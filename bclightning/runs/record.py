"""What is remembered of a run: everything a comparison, an export or a repetition needs."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from bclightning.errors import UserError
from bclightning.runs.folder import checked_name
from bclightning.storage import write_text

FORMAT = 1

Status = Literal["running", "finished", "interrupted", "failed", "pruned"]

Stage = Literal["train", "tune", "final"]
"""What a run is for: itself, a sweep's search for a setting, or the setting that was found."""

METHOD_NUMBERS = {"binary": 1, "real": 2, "ensemble": 3}
"""The numbers that the paper's section 2.6 gives to its test-time methods, by their weights."""


@dataclass
class RunRecord:
    """The record of a run, ``run.json`` in its folder.

    Attributes:
        run_id: The run's name, unique in its experiment.
        experiment: The group that the run belongs to.
        method: ``none``, ``dropout``, ``deterministic`` or ``stochastic``.
        data: Name of the data set.
        seed: The seed of everything.
        epochs: Number of epochs asked for.
        arm: The row of a comparison that the run belongs to; its method when left out.
        stage: What the run is for; tuning runs do not touch the test set.
        trial: Number of the sweep's trial.
        settings: What was configured, flat, as ``{"model.learning_rate": 0.001}``, without the
            seed and without names and places: runs of the same settings differ by chance alone.
        status: ``running`` until the run ends; a killed run stays so.
        reason: Why it failed or was interrupted.
        best_epoch: The epoch with the lowest validation error, counted from 0 as in metrics.csv.
        validation_error: At that epoch, in percent.
        test: Test errors at that epoch in percent, by weights and batch-norm statistics; of an
            ensemble with the number of its members.
        chosen: Weights and statistics of the method that stands for the run.
        split_sizes: Number of images by split.
        checksums: MD5 of each data file.
        binary_weights: Number of weights that take one bit each.
        real_weights: Number of other parameters.
        float_bytes: Size with every parameter in 32 bits.
        packed_bytes: Size with one bit for a binary weight.
        versions: Of this package, Python and the libraries.
        git: Commit and dirty flag of the code, ``None`` outside a repository.
        machine: Device, processor and threads.
        parts: Of a run that was stopped and went on: the start, versions, code and machine of each
            later part that had others than the part before it.
        wandb: Mode and id of the W&B run.
        started: Start of the run, ISO 8601 with time zone.
        finished: End of the run.
        train_seconds: Time in training and validation, over all parts of a resumed run.
        format: Version of this format.

    Example:
        >>> record = RunRecord(run_id="a", experiment="e", method="none", data="digits", seed=0)
        >>> record.status
        'running'
        >>> record.row
        'none'
    """

    run_id: str
    experiment: str
    method: str
    data: str
    seed: int
    epochs: int = 0
    arm: str = ""
    stage: Stage = "train"
    trial: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    status: Status = "running"
    reason: str = ""
    best_epoch: int | None = None
    validation_error: float | None = None
    test: list[dict[str, Any]] = field(default_factory=list)
    chosen: dict[str, str] = field(default_factory=dict)
    split_sizes: dict[str, int] = field(default_factory=dict)
    checksums: dict[str, str] = field(default_factory=dict)
    binary_weights: int = 0
    real_weights: int = 0
    float_bytes: int = 0
    packed_bytes: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    git: dict[str, Any] | None = None
    machine: dict[str, Any] = field(default_factory=dict)
    parts: list[dict[str, Any]] = field(default_factory=list)
    wandb: dict[str, str] = field(default_factory=dict)
    started: str = ""
    finished: str = ""
    train_seconds: float = 0.0
    format: int = FORMAT

    @property
    def row(self) -> str:
        """The row of a comparison that the run belongs to."""
        return self.arm or self.method

    @property
    def test_error(self) -> float | None:
        """The test error of the chosen method, in percent."""
        return self.error_with(self.chosen.get("weights", ""))

    def error_with(self, weights: str, batch_norm: str | None = None) -> float | None:
        """The test error with some weights, in percent.

        Args:
            weights: ``binary``, ``real`` or ``ensemble``.
            batch_norm: ``as trained`` or ``re-estimated``; what was chosen when left out.
        """
        statistics = batch_norm or self.chosen.get("batch_norm")
        for entry in self.test:
            if (entry["weights"], entry["batch_norm"]) == (weights, statistics):
                return float(entry["error"])
        return None

    def go_on_from(self, before: "RunRecord") -> None:
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
        self.versions, self.git, self.machine = before.versions, before.git, before.machine

    def write(self, path: Path) -> None:
        """Write the record, whole or not at all."""
        write_text(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> "RunRecord":
        """Read a record.

        Raises:
            UserError: The file is missing, half-written, or of a later format.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(f"there is no run record {path}") from error
        except ValueError as error:
            raise UserError(f"{path} is not a whole run record; remove it or run again") from error
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: Any, where: str = "a run record") -> "RunRecord":
        """Make a record of what JSON holds.

        Args:
            content: The record as plain data.
            where: Where it comes from, for the error's sentence.

        Raises:
            UserError: Something of it is missing, it is of a later format, or it names a run or an
                experiment as none can be named.
        """
        try:
            version = content["format"]
            if version > FORMAT:
                raise UserError(
                    f"{where} is of format {version}, and this version reads up to {FORMAT}; "
                    "install a newer bclightning"
                )
            record = cls(**{key: value for key, value in content.items() if key in _KNOWN})
            # They become names of folders.
            checked_name(record.run_id, f"run_id in {where}")
            checked_name(record.experiment, f"experiment in {where}")
            return record
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{where} is not a whole run record; remove it or run again") from error


_KNOWN = frozenset(entry.name for entry in fields(RunRecord))
