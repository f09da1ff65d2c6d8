"""The first epochs of a recorded run once more, and whether its files tell the truth."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from bclightning.data import ImageDataModule
from bclightning.errors import UserError
from bclightning.runs.agreement import derived_disagreements, disagreements
from bclightning.runs.config import RunConfig
from bclightning.runs.evaluate import ENSEMBLE_SIZE, evaluate
from bclightning.runs.folder import RunFolder
from bclightning.runs.metrics_csv import EPOCH, MetricsTable, shortest
from bclightning.runs.rebuild import rebuild
from bclightning.runs.recipes import read_config
from bclightning.runs.record import RunRecord
from bclightning.runs.run import fit_as_recorded
from bclightning.runs.threads import preserving_threads, recorded_threads
from bclightning.vocabulary import RE_ESTIMATED, TRAIN_LOSS, VAL_ERROR, EvalWeights

# Where rounding differs, the curves of a run part like those of two seeds: on MNIST by up to an
# eighth in validation error, and less in the loss, in the first epochs.
ERROR_BAND = 0.25
MIN_ERROR_BAND = 0.5
LOSS_BAND = 0.15

BAND = (
    f"errors within {ERROR_BAND:.0%} (at least {MIN_ERROR_BAND} points), "
    f"losses within {LOSS_BAND:.0%}"
)


@dataclass(frozen=True)
class Difference:
    """How far apart a metric is in the record and again.

    Attributes:
        epoch: Counted from 0.
        metric: Name of the metric.
        recorded: Recorded value; ``None`` where none was recorded.
        again: Value now; ``None`` where it was not computed.
        is_score: Whether runs are judged by it, as by a test's value.
    """

    epoch: int
    metric: str
    recorded: float | None
    again: float | None
    is_score: bool = False

    @property
    def within_band(self) -> bool:
        """Whether chance may make such a difference on another machine.

        For an error, a quarter of the recorded one, and at least half a percentage point; for
        another score a quarter, and for a training loss 15 %. Other metrics may differ, and another
        version may have more of them.

        Example:
            >>> Difference(0, "val/error", 1.0, 1.4).within_band
            True
            >>> Difference(0, "train/loss", 1.0, 1.4).within_band
            False
        """
        if self.recorded is None or self.again is None:
            return self.again is not None
        apart = abs(self.again - self.recorded)
        if self.is_score or self.metric == VAL_ERROR:
            least = MIN_ERROR_BAND if self.metric.endswith("/error") else 0.0
            return apart <= max(least, ERROR_BAND * abs(self.recorded))
        if self.metric == TRAIN_LOSS:
            return apart <= LOSS_BAND * abs(self.recorded)
        return True


@dataclass(frozen=True)
class Reproduction:
    """The first epochs of a recorded run, and the same epochs trained again.

    Attributes:
        record: The record.
        rows: The recorded metrics of these epochs, one row per epoch; none if the run's files
            disagree, so that nothing was trained.
        differences: Metrics and test results that are not the same to the last bit.
        changed: Differences in machine, versions and code that may change roundings.
        disagreements: Where the run's files contradict each other or what is derived from them.
        tested: Number of test results that were computed again.
        epochs: Number of epochs that are recorded.
    """

    record: RunRecord
    rows: list[dict[str, float]]
    differences: list[Difference]
    changed: list[str]
    disagreements: list[str] = field(default_factory=list)
    tested: int = 0
    epochs: int = 0

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
        """Whether the record is true here: to the bit, or within the band if something changed.

        It is not where the run's files disagree, or where nothing was compared.
        """
        if self.disagreements or not self.metrics:
            return False
        return self.exact or (bool(self.changed) and self.within_band)


def reproduce(
    config: RunConfig, *, epochs: int = 2, callbacks: Sequence[Callback] = ()
) -> Reproduction:
    """Train the first epochs of a recorded run again, and compare them with its metrics.

    Before that, its files are compared with each other, and after it the recorded test results with
    those of the run's checkpoint, or of all its epochs if all were trained again.

    On a CPU it computes on the recorded number of threads, since sums are made in as many parts as
    there are threads, and rounded accordingly.

    Args:
        config: Configuration of the run, by `RunConfig.from_run`, whose options may say where
            things are here.
        epochs: Number of epochs.
        callbacks: Callbacks such as a progress bar.

    Raises:
        UserError: The folder has no record, a file cannot be read, an option would make it another
            run, or the data files are not those of the record.
    """
    if config.run is None:
        raise UserError("name the folder of a recorded run")
    if config.changed:
        raise UserError(f"{config.changed[0]} would make it another run; leave it out")
    record = RunRecord.read(config.run.record)
    rows = MetricsTable(config.run.metrics).rows
    contradictions = disagreements(record, read_config(config.run.config), rows)
    if contradictions:
        return Reproduction(record, [], [], [], contradictions, epochs=len(rows))
    if not 1 <= epochs <= len(rows):
        raise UserError(f"--epochs is 1 to {len(rows)}, the number of epochs that are recorded")
    with tempfile.TemporaryDirectory(prefix="bcl-reproduce-") as place:
        here = {"runs_dir": place, "experiment": record.experiment, "run_id": record.run_id}
        again = RunConfig.load(config, {**here, "wandb.mode": "disabled"})
        now = fit_as_recorded(again, record, callbacks=callbacks, epochs=epochs)
        if now.checksums != record.checksums:
            raise UserError("the data files are not those of the record: their checksums differ")
        folder = RunFolder(Path(place) / record.experiment / record.run_id)
        differences = compare_curves(
            rows[:epochs], MetricsTable(folder.metrics).rows, record.monitor
        )
        if epochs == len(rows) and record.status == "finished":
            tests = _test_again(again.of_run(folder), record)
        elif (config.run.checkpoints / "best.ckpt").is_file():
            tests = _test_again(config, record)
        else:
            tests = []
    return Reproduction(
        record,
        rows[:epochs],
        differences + [test for test in tests if not _same_test(test, now)],
        what_changed(record, now),
        derived_disagreements(record, now),
        tested=len(tests),
        epochs=len(rows),
    )


def _test_again(config: RunConfig, record: RunRecord) -> list[Difference]:
    """The recorded test results, each with that of the best epoch of a run."""
    if not record.test:
        return []
    with preserving_threads():
        if (threads := recorded_threads(record)) is not None:
            torch.set_num_threads(threads)
        return _evaluate_again(config, record)


def _evaluate_again(config: RunConfig, record: RunRecord) -> list[Difference]:
    network = rebuild(config)
    if isinstance(network.data, ImageDataModule):
        network.data.use_seeds(record.seed, record.seeding)
    sizes = [entry["ensemble_size"] for entry in record.test if entry["weights"] == "ensemble"]
    kinds: list[tuple[EvalWeights | None, int]] = [(None, ENSEMBLE_SIZE)]
    kinds += [("ensemble", size) for size in dict.fromkeys(sizes)]
    again: dict[tuple[str, str, int | None], float] = {}
    for weights, size in kinds:
        results = evaluate(
            network.model,
            network.data,
            network.trainer,
            "test",
            record.test_metric,
            network.make_trainer,
            weights,
            size,
        )
        again |= {_kind(entry): entry["value"] for entry in (one.entry() for one in results)}
    return [
        Difference(
            record.best_epoch or 0,
            f"{record.test_metric} ({entry['weights']}, {entry['batch_norm']})",
            float(entry["value"]),
            again.get(_kind(entry)),
            is_score=True,
        )
        for entry in record.test
    ]


def _same_test(test: Difference, now: RunRecord) -> bool:
    if _same(test.recorded, test.again):
        return True
    # A user's own loader may draw which batches the statistics are re-estimated from.
    drawn = not now.split_sizes and RE_ESTIMATED in test.metric
    return drawn and test.within_band


def _kind(entry: Mapping[str, Any]) -> tuple[str, str, int | None]:
    return entry["weights"], entry["batch_norm"], entry.get("ensemble_size")


def compare_curves(
    recorded: Sequence[dict[str, float]],
    again: Sequence[dict[str, float]],
    monitor: str = VAL_ERROR,
) -> list[Difference]:
    """The metrics that are not the same, to the last bit, or that only one of both has.

    Args:
        recorded: Recorded metrics, one row per epoch.
        again: Metrics of the same epochs trained again.
        monitor: Metric that the run is judged by.

    Example:
        >>> compare_curves([{"epoch": 0.0, "val/error": 2.0}], [{"epoch": 0.0, "val/error": 2.0}])
        []
    """
    new = {row[EPOCH]: row for row in again}
    differences = []
    for row in recorded:
        other = new.get(row[EPOCH], {})
        for metric in dict.fromkeys((*row, *other)):
            before, now = row.get(metric), other.get(metric)
            if not _same(before, now):
                differences.append(
                    Difference(int(row[EPOCH]), metric, before, now, metric == monitor)
                )
    return differences


def _same(value: float | None, again: float | None) -> bool:
    """Whether two metrics, which have single precision, are the same, however they are written."""
    if value is None or again is None:
        return value is again
    # As text, since NaN is not equal to itself.
    return str(shortest(value)) == str(shortest(again))


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
