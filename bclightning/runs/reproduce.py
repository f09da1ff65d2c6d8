"""The first epochs of a recorded run once more, and whether they are the same."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback

from bclightning.errors import UserError
from bclightning.runs.config import RunConfig
from bclightning.runs.folder import RunFolder
from bclightning.runs.metrics_csv import EPOCH, MetricsTable, shortest
from bclightning.runs.record import RunRecord
from bclightning.runs.run import fit_as_recorded
from bclightning.vocabulary import TRAIN_LOSS, VAL_ERROR

# Where rounding differs, the curves of a run part like those of two seeds: on MNIST by up to an
# eighth in validation error, and less in the loss, in the first epochs.
ERROR_BAND = 0.25
MIN_ERROR_BAND = 0.5
LOSS_BAND = 0.15

BAND = (
    f"validation errors within {ERROR_BAND:.0%} (at least {MIN_ERROR_BAND} points), "
    f"losses within {LOSS_BAND:.0%}"
)


@dataclass(frozen=True)
class Difference:
    """How far apart a metric is in the recorded curve and in the new one.

    Attributes:
        epoch: Counted from 0.
        metric: Name of the metric.
        recorded: Recorded value.
        again: Value now; ``None`` where it was not computed.
    """

    epoch: int
    metric: str
    recorded: float
    again: float | None

    @property
    def within_band(self) -> bool:
        """Whether chance may make such a difference on another machine.

        For a validation error, a quarter of the recorded one, and at least half a percentage point;
        for a training loss, 15 %. Other metrics may differ.

        Example:
            >>> Difference(0, "val/error", 1.0, 1.4).within_band
            True
            >>> Difference(0, "train/loss", 1.0, 1.4).within_band
            False
        """
        if self.again is None:
            return False
        apart = abs(self.again - self.recorded)
        if self.metric == VAL_ERROR:
            return apart <= max(MIN_ERROR_BAND, ERROR_BAND * self.recorded)
        if self.metric == TRAIN_LOSS:
            return apart <= LOSS_BAND * abs(self.recorded)
        return True


@dataclass(frozen=True)
class Reproduction:
    """The first epochs of a recorded run, and the same epochs trained again.

    Attributes:
        record: The record.
        rows: The recorded metrics of these epochs, one row per epoch.
        differences: Metrics that are not the same to the last bit.
        changed: Differences in machine, versions and code that may change roundings.
    """

    record: RunRecord
    rows: list[dict[str, float]]
    differences: list[Difference]
    changed: list[str]

    @property
    def metrics(self) -> int:
        """Number of metrics that were compared."""
        return sum(len(row) - 1 for row in self.rows)

    @property
    def exact(self) -> bool:
        """Whether every metric is the same to the last bit."""
        return not self.differences

    @property
    def within_band(self) -> bool:
        """Whether all differences are such as another machine may make."""
        return all(difference.within_band for difference in self.differences)

    @property
    def succeeded(self) -> bool:
        """Whether the record is true here: to the bit, or within the band if something changed."""
        return self.exact or (bool(self.changed) and self.within_band)


def reproduce(
    config: RunConfig, *, epochs: int = 2, callbacks: Sequence[Callback] = ()
) -> Reproduction:
    """Train the first epochs of a recorded run again, and compare them with its metrics.

    On a CPU it computes on the recorded number of threads, since sums are made in as many parts as
    there are threads, and rounded accordingly.

    Args:
        config: Configuration of the run, by `RunConfig.from_run`, whose options may say where
            things are here.
        epochs: Number of epochs.
        callbacks: Callbacks such as a progress bar.

    Raises:
        UserError: The folder has no record, an option would make it another run, or the data files
            are not those of the record.
    """
    if config.run is None:
        raise UserError("name the folder of a recorded run")
    if config.changed:
        raise UserError(f"{config.changed[0]} would make it another run; leave it out")
    record = RunRecord.read(config.run.record)
    rows = MetricsTable(config.run.metrics).rows
    if not 1 <= epochs <= len(rows):
        raise UserError(f"--epochs is 1 to {len(rows)}, the number of epochs that are recorded")
    with tempfile.TemporaryDirectory(prefix="bcl-reproduce-") as place:
        here = {"runs_dir": place, "experiment": record.experiment, "run_id": record.run_id}
        again = RunConfig.load(config, {**here, "wandb.mode": "disabled"})
        now = fit_as_recorded(again, record, callbacks=callbacks, epochs=epochs)
        if now.checksums != record.checksums:
            raise UserError("the data files are not those of the record: their checksums differ")
        metrics = RunFolder(Path(place) / record.experiment / record.run_id).metrics
        differences = compare_curves(rows[:epochs], MetricsTable(metrics).rows)
    return Reproduction(record, rows[:epochs], differences, what_changed(record, now))


def compare_curves(
    recorded: Sequence[dict[str, float]], again: Sequence[dict[str, float]]
) -> list[Difference]:
    """The metrics that are not the same, to the last bit.

    Args:
        recorded: Recorded metrics, one row per epoch.
        again: Metrics of the same epochs trained again.

    Example:
        >>> compare_curves([{"epoch": 0.0, "val/error": 2.0}], [{"epoch": 0.0, "val/error": 2.0}])
        []
    """
    new = {row[EPOCH]: row for row in again}
    return [
        Difference(int(row[EPOCH]), metric, value, new.get(row[EPOCH], {}).get(metric))
        for row in recorded
        for metric, value in row.items()
        if not _same(value, new.get(row[EPOCH], {}).get(metric))
    ]


def _same(value: float, again: float | None) -> bool:
    """Whether two metrics, which have single precision, are the same, however they are written."""
    return again is not None and shortest(value) == shortest(again)


def what_changed(record: RunRecord, now: RunRecord) -> list[str]:
    """What may make other roundings: machine, versions and code that are not the record's.

    Example:
        >>> a, b = (RunRecord("r", "e", "none", "digits", 0, versions={"torch": v}) for v in "12")
        >>> what_changed(a, b)
        ['torch 1, now 2']
    """
    changes = []
    for before, after in ((record.machine, now.machine), (record.versions, now.versions)):
        for key in dict.fromkeys((*before, *after)):
            if before.get(key) != after.get(key):
                changes.append(f"{key} {before.get(key)}, now {after.get(key)}")
    old, new = record.git or {}, now.git or {}
    if old.get("commit") != new.get("commit"):
        changes.append(f"commit {_commit(old)}, now {_commit(new)}")
    if old.get("dirty") or new.get("dirty"):
        changes.append("changes that were not committed")
    return changes


def _commit(git: dict[str, Any]) -> str:
    return str(git.get("commit") or "unknown")[:12]
