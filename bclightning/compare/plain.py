"""A comparison as plain data with every digit: JSON, CSV, rows of a data frame."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from bclightning.compare.arms import Arm, Comparison
from bclightning.compare.columns import Column, shown_columns
from bclightning.compare.equivalence import Equivalence
from bclightning.compare.statistics import Sample
from bclightning.formatting import printable

_SAMPLES = ("best_score", "test_value", "one_bit_test_value", "best_epoch")


def plain(
    comparisons: Sequence[Comparison], wanted: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """All figures of each comparison as plain data, with every digit.

    Args:
        comparisons: The comparisons.
        wanted: Names of columns, to which the figures of the arms are reduced.

    Raises:
        UserError: There is no such column.
    """
    return [
        {
            "data": comparison.data,
            "monitor": comparison.monitor.name,
            "monitor_mode": comparison.monitor.mode,
            "test_metric": comparison.test_metric.name,
            "arms": _plain_arms(comparison, wanted),
            "pairs": [vars(pair) for pair in comparison.pairs],
            "pairs_on": comparison.tested_on,
            "one_bit": [_plain_equivalence(each) for each in comparison.one_bit],
            "beside_paper": [vars(pair) for pair in comparison.beside_paper],
            "hyperparameters": comparison.varied,
            "notes": list(comparison.notes),
        }
        for comparison in comparisons
    ]


def _plain_arms(comparison: Comparison, wanted: Sequence[str] | None) -> list[dict[str, Any]]:
    arms = [_plain_arm(comparison, arm) for arm in comparison.arms]
    if wanted is None:
        return arms
    columns = shown_columns(comparison, wanted)
    return [_reduced(arm, columns) for arm in arms]


def _reduced(arm: dict[str, Any], columns: Sequence[Column]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for column in columns:
        if column.name in arm:
            found[column.name] = arm[column.name]
        elif column.name == "interval":
            found["interval"] = arm["test_value"] or arm["best_score"]
        else:
            value = arm["settings"].get(column.name)
            found.setdefault("settings", {})[column.name] = value
    return found


def _plain_arm(comparison: Comparison, arm: Arm) -> dict[str, Any]:
    def sample(value: Sample | None) -> dict[str, Any] | None:
        return None if value is None else vars(value)

    first = arm.runs[0]
    # What the sweep chose, or else what differs.
    keys = dict.fromkeys([*comparison.settings, *comparison.varied.get(arm.label, {})])
    return {
        "arm": arm.label,
        "n": len(arm.runs),
        "best_score": sample(arm.best_score),
        "test_value": sample(arm.test),
        "eval_weights": arm.evaluation,
        "one_bit_test_value": sample(arm.one_bit),
        "best_epoch": sample(arm.best_epoch),
        "epochs": first.epochs,
        "train_seconds": arm.seconds,
        "packed_bytes": first.packed_bytes,
        "float_bytes": first.float_bytes,
        "paper": None if arm.paper is None else str(arm.paper),
        "settings": {key: first.hyperparameters.get(key) for key in keys},
        "runs": [run.run_id for run in arm.runs],
    }


def _plain_equivalence(each: Equivalence) -> dict[str, Any]:
    return {**vars(each), "least_margin": each.least_margin, "verdict": each.verdict}


def flat_rows(
    comparisons: Sequence[Comparison], wanted: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """A row an arm, with a column for each figure.

    Args:
        comparisons: The comparisons.
        wanted: Names of columns, whose figures there are; all if ``None``.

    Raises:
        UserError: There is no such column.
    """
    rows = []
    for comparison, entry in zip(comparisons, plain(comparisons), strict=True):
        metrics = {key: entry[key] for key in ("monitor", "monitor_mode", "test_metric")}
        for arm in entry["arms"]:
            row = {"data": entry["data"], **_flat(arm), **metrics, **arm["settings"]}
            if wanted is not None:
                parts = [part for c in shown_columns(comparison, wanted) for part in c.parts]
                row = {part: row.get(part) for part in parts}
            rows.append(row)
    return rows


def _flat(arm: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in arm.items():
        if key in _SAMPLES:
            for part in ("mean", "std", "low", "high"):
                flat[f"{key}_{part}"] = None if value is None else value[part]
        elif key != "settings":
            flat[key] = " ".join(value) if isinstance(value, list) else value
    return flat


def _cell(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def as_json(comparisons: Sequence[Comparison], wanted: Sequence[str] | None = None) -> str:
    """`plain` as JSON."""
    return json.dumps(plain(comparisons, wanted), indent=2)


def as_csv(comparisons: Sequence[Comparison], wanted: Sequence[str] | None = None) -> str:
    """`flat_rows` as CSV."""
    rows = flat_rows(comparisons, wanted)
    # Comparisons of several data sets may differ in other hyperparameters.
    names = dict.fromkeys(key for row in rows for key in row)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_cell(name) for name in names])
    writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    return text.getvalue().rstrip("\n")
