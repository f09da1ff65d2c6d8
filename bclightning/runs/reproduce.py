"""`bcl reproduce`: the first epochs of a recorded run once more, and whether they are the same."""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bclightning.cli.parser import Arguments
from bclightning.errors import UserError
from bclightning.runs.folder import RunFolder
from bclightning.runs.metrics_csv import EPOCH, MetricsTable, shortest
from bclightning.runs.record import RunRecord
from bclightning.runs.run import fit

# Where rounding differs, the curves of a run part like those of two seeds: on MNIST by up to an
# eighth in validation error, and less in the loss, in the first epochs.
ERROR_BAND = 0.25
LEAST_ERROR_BAND = 0.5
LOSS_BAND = 0.15


@dataclass(frozen=True)
class Difference:
    """How far apart a metric is in the recorded curve and in the new one.

    Attributes:
        epoch: Counted from 0.
        metric: Its name.
        recorded: Its recorded value.
        again: Its value now; ``None`` where it was not computed.
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
        match self.metric:
            case "val/error":
                return apart <= max(LEAST_ERROR_BAND, ERROR_BAND * self.recorded)
            case "train/loss":
                return apart <= LOSS_BAND * abs(self.recorded)
        return True


def reproduce(arguments: Sequence[str]) -> bool:
    """Run `bcl reproduce RECORD`: train the first epochs again, and compare with the record.

    Returns:
        Whether they agree: bit for bit, or, where machine, versions or code are others, within the
        band.

    Raises:
        UserError: There is no such record, or the data is other data.
    """
    parser = Arguments(
        "bcl reproduce",
        "Train the first epochs of a recorded run again, from its record alone, and compare with "
        "the recorded metrics. What follows, such as --data.root, says where things are here.",
    )
    parser.add_argument("record", metavar="RECORD", help="a run's folder, as in results/mnist/")
    parser.add_argument("--epochs", type=int, default=2, metavar="N", help="default: 2")
    given, places = parser.parse_known_args(list(arguments))
    recorded = RunFolder.find(given.record)
    record = RunRecord.read(recorded.record)
    rows = MetricsTable(recorded.metrics).rows
    if not 1 <= given.epochs <= len(rows):
        raise UserError(f"--epochs is 1 to {len(rows)}, the number of epochs that are recorded")
    console = Console()
    threads = record.machine.get("threads")
    if record.machine.get("device") == "cpu" and threads:
        # Sums are made in as many parts as there are threads, and rounded accordingly.
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(prefix="bcl-reproduce-") as place:
        again = RunFolder(Path(place) / record.experiment / record.run_id)
        again.create()
        shutil.copyfile(recorded.config, again.config)
        now = fit(
            ["--resume", str(again.path), "--wandb.mode", "disabled", *places],
            epochs=given.epochs,
        )
        if now.checksums != record.checksums:
            raise UserError("the data files are not those of the record: their checksums differ")
        differences = compare_curves(rows[: given.epochs], MetricsTable(again.metrics).rows)
    changed = what_changed(record, now)
    return _report(console, record, rows[: given.epochs], differences, changed)


def compare_curves(
    recorded: Sequence[dict[str, float]], again: Sequence[dict[str, float]]
) -> list[Difference]:
    """The metrics that are not the same, to the last bit.

    Args:
        recorded: A row for each epoch.
        again: Likewise.

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


def _report(
    console: Console,
    record: RunRecord,
    rows: Sequence[dict[str, float]],
    differences: Sequence[Difference],
    changed: Sequence[str],
) -> bool:
    apart = {(difference.epoch, difference.metric): difference for difference in differences}
    table = Table(title=f"{record.run_id}, recorded and again", title_justify="left")
    for header in ("epoch", "metric", "recorded", "again"):
        table.add_column(header, justify="left" if header == "metric" else "right")
    for row in rows:
        epoch = int(row[EPOCH])
        for metric in ("train/loss", "val/error", "val/loss"):
            if metric in row:
                other = apart.get((epoch, metric))
                again = "the same" if other is None else "-"
                if other is not None and other.again is not None:
                    again = f"{other.again:.6g}"
                table.add_row(str(epoch + 1), metric, f"{row[metric]:.6g}", again)
    console.print(table)
    if changed:
        console.print("not as recorded: " + "; ".join(changed), highlight=False, soft_wrap=True)
    count = sum(len(row) - 1 for row in rows)
    band = (
        f"validation errors within {ERROR_BAND:.0%} (at least {LEAST_ERROR_BAND} points), "
        f"losses within {LOSS_BAND:.0%}"
    )
    within = all(difference.within_band for difference in differences)
    if not differences:
        verdict = f"bit for bit the same: {count} metrics of {len(rows)} epochs"
    elif not changed:
        verdict = (
            f"NOT reproduced: {len(differences)} of {count} metrics differ, though machine, "
            "versions and code are those of the record"
        )
    elif within:
        verdict = f"within the band ({band}), not bit for bit: {len(differences)} of {count} differ"
    else:
        verdict = f"NOT reproduced: outside the band ({band})"
    console.print(verdict, highlight=False, soft_wrap=True)
    return not differences or (bool(changed) and within)
