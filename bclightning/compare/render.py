"""A comparison as tables for a terminal, as Markdown, plain text, CSV or JSON; nothing prints."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from bclightning.compare.arms import Arm, Comparison
from bclightning.compare.statistics import Sample
from bclightning.formatting import duration, markdown_text, megabytes, printable
from bclightning.vocabulary import BATCH_NORM_STATISTICS, PAPER_METHODS

PAPER_IN_WORDS = (
    "Our test errors less the paper's, in percentage points and in standard errors of that "
    "difference, tested like the pairs. The paper's figures are of the paper's protocol, whatever "
    "ours is."
)

PAPER_HEADINGS = (
    "arm",
    "ours",
    "paper",
    "difference",
    "standard errors",
    "p",
    "p corrected",
)

# Columns of the terminal that all headings need, and the groups that fit into half of it.
WIDE = 150
NARROW = ((0, 1, 2, 3, 4, 10), (0, 5, 6, 7, 8, 9))

_LABELS = ("arm", "against")


def arm_headings(comparison: Comparison) -> tuple[str, ...]:
    """Headings of the table with a row an arm."""
    return (
        "arm",
        "n",
        comparison.monitor.heading,
        comparison.test_metric.heading,
        "95 % interval",
        "evaluation weights",
        f"1-bit {comparison.test_metric.heading}",
        "best epoch",
        "time",
        "1-bit size",
        "paper %",
    )


def arm_cells(comparison: Comparison) -> list[tuple[str, ...]]:
    """A row for each arm, in the order of `arm_headings`."""
    return [_arm_row(comparison, arm) for arm in comparison.arms]


def _arm_row(comparison: Comparison, arm: Arm) -> tuple[str, ...]:
    monitor, test = comparison.monitor, comparison.test_metric
    first = arm.runs[0]
    one_bit, best_epoch = arm.one_bit, arm.best_epoch
    return (
        arm.label,
        str(len(arm.runs)),
        monitor.show(arm.best_score),
        test.show(arm.test),
        # Where nothing was tested, the interval is of the monitored metric and says so.
        test.interval(arm.test) if arm.test else f"{monitor.interval(arm.best_score)} (validation)",
        arm.evaluation,
        _with_n(test.show(one_bit), one_bit, len(arm.runs)),
        f"{best_epoch.mean:.0f} of {first.epochs}" if best_epoch else "-",
        duration(arm.seconds),
        megabytes(first.packed_bytes) if first.binary_weights else "-",
        "-" if arm.paper is None else str(arm.paper),
    )


def _with_n(text: str, sample: Sample | None, usual: int) -> str:
    """A cell that says the number of its runs where that is not the row's."""
    return text if sample is None or sample.n == usual else f"{text} (n = {sample.n})"


def evaluation_markdown(comparison: Comparison) -> str:
    """Test results by evaluation weights and batch-norm statistics, in Markdown; may be empty."""
    columns = {
        f"{weights}, BN {batch_norm}": [
            arm.test_with(weights, batch_norm) for arm in comparison.arms
        ]
        for weights in PAPER_METHODS
        for batch_norm in BATCH_NORM_STATISTICS
    }
    measured = {heading: samples for heading, samples in columns.items() if any(samples)}
    if not measured:
        return ""

    def cell(sample: Sample | None) -> str:
        return "-" if sample is None else f"{comparison.test_metric.show(sample)} (n = {sample.n})"

    rows = [
        [arm.label, *(cell(samples[place]) for samples in measured.values())]
        for place, arm in enumerate(comparison.arms)
    ]
    return markdown_table(["arm", *measured], rows)


def paper_cells(comparison: Comparison) -> list[tuple[str, ...]]:
    """How far arms lie from the paper's figures, in the order of `PAPER_HEADINGS`; may be empty."""
    arms = {arm.label: arm for arm in comparison.arms}
    return [
        (
            pair.second,
            str(arms[pair.second].test),
            str(arms[pair.second].paper),
            comparison.test_metric.difference(pair.difference),
            "-" if pair.standard_errors is None else f"{pair.standard_errors:+.1f}",
            _p(pair.p),
            _p(pair.p_holm),
        )
        for pair in comparison.beside_paper
    ]


def pair_headings(comparison: Comparison) -> tuple[str, ...]:
    """Headings of `pair_cells`."""
    return (
        "arm",
        "against",
        f"difference of {comparison.tested_metric.plural}",
        "p",
        "p corrected",
    )


def pair_cells(comparison: Comparison) -> list[tuple[str, ...]]:
    """A row for each pair of arms: labels, difference, p and corrected p."""
    return [
        (
            pair.first,
            pair.second,
            comparison.tested_metric.difference(pair.difference),
            _p(pair.p),
            _p(pair.p_holm),
        )
        for pair in comparison.pairs
    ]


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def pairs_in_words(comparison: Comparison) -> str:
    """How pairs were tested."""
    values = "errors" if comparison.tested_metric.is_error else "values"
    return (
        "p: Welch's t-test, two-sided, which assumes independent runs with about normally "
        f"distributed {values} and not equal spread; corrected for the number of pairs by Holm's "
        "method."
    )


def terminal_parts(comparison: Comparison, width: int) -> list[Table | Text | str]:
    """A comparison for people at a terminal.

    Args:
        comparison: The comparison.
        width: Columns of the terminal.

    Returns:
        Tables, explanations of them, which may be wrapped, and notes, which should not be.
    """
    headings, rows = arm_headings(comparison), arm_cells(comparison)
    parts: list[Table | Text | str] = []
    # What does not fit into a narrow terminal side by side comes one below the other.
    for shown in (tuple(range(len(headings))),) if width >= WIDE else NARROW:
        some = [[row[index] for index in shown] for row in rows]
        parts.append(_table(comparison.title, [headings[index] for index in shown], some))
    if comparison.beside_paper:
        parts.append(_table("beside the paper", PAPER_HEADINGS, paper_cells(comparison)))
        parts.append(Text(PAPER_IN_WORDS, style="dim"))
    if comparison.pairs:
        parts.append(_table("pairs", pair_headings(comparison), pair_cells(comparison)))
        parts.append(Text(pairs_in_words(comparison), style="dim"))
    return [*parts, *map(printable, comparison.notes)]


def _table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    # Texts, in which brackets are no markup.
    table = Table(title=Text(printable(title)), title_justify="left", box=box.SIMPLE_HEAD)
    # A label of several settings has a line for each, or it would leave no room for figures.
    lines = [[printable(cell).replace(", ", ",\n") for cell in row] for row in rows]
    for heading, *column in zip(map(printable, headings), *lines, strict=True):
        words = [word for cell in (heading, *column) for word in cell.split()]
        least = max(map(cell_len, words), default=0)
        table.add_column(Text(heading), min_width=least, no_wrap=heading in _LABELS)
    for line in lines:
        table.add_row(*map(Text, line))
    return table


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, of cells in plain text.

    Example:
        >>> print(markdown_table(["a", "b"], [["1", "2"]]))
        | a | b |
        |---|---|
        | 1 | 2 |
    """
    return joined_markdown(
        [markdown_text(heading) for heading in headings],
        [[markdown_text(cell) for cell in row] for row in rows],
    )


def joined_markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, of cells that are Markdown already."""
    texts = [f"| {' | '.join(line)} |" for line in (headings, *rows)]
    return "\n".join([texts[0], "|---" * len(headings) + "|", *texts[1:]])


def text_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in plain text, with aligned columns.

    Example:
        >>> print(text_table(["arm", "n"], [["stochastic", "3"]]))
        arm         n
        stochastic  3
    """
    lines = [[printable(cell) for cell in line] for line in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def markdown(comparisons: Sequence[Comparison]) -> str:
    """Each comparison as Markdown."""
    return _written(comparisons, "**{}**", markdown_table, markdown_text)


def plain_text(comparisons: Sequence[Comparison]) -> str:
    """Each comparison as plain text."""
    return _written(comparisons, "{}", text_table, printable)


def _written(
    comparisons: Sequence[Comparison],
    title: str,
    table: Callable[[Sequence[str], Sequence[Sequence[str]]], str],
    text: Callable[[str], str],
) -> str:
    parts = []
    for comparison in comparisons:
        parts.append(title.format(text(comparison.title)))
        parts.append(table(arm_headings(comparison), arm_cells(comparison)))
        if comparison.beside_paper:
            parts += [table(PAPER_HEADINGS, paper_cells(comparison)), PAPER_IN_WORDS]
        if comparison.pairs:
            parts.append(table(pair_headings(comparison), pair_cells(comparison)))
            parts.append(pairs_in_words(comparison))
        parts.extend(map(text, comparison.notes))
    return "\n\n".join(parts)


def plain(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """All figures of each comparison as plain data, with every digit."""
    return [
        {
            "data": comparison.data,
            "monitor": comparison.monitor.name,
            "monitor_mode": comparison.monitor.mode,
            "test_metric": comparison.test_metric.name,
            "arms": [_plain_arm(arm) for arm in comparison.arms],
            "pairs": [vars(pair) for pair in comparison.pairs],
            "pairs_on": comparison.tested_on,
            "beside_paper": [vars(pair) for pair in comparison.beside_paper],
            "hyperparameters": comparison.varied,
            "notes": list(comparison.notes),
        }
        for comparison in comparisons
    ]


def _plain_arm(arm: Arm) -> dict[str, Any]:
    def sample(value: Sample | None) -> dict[str, Any] | None:
        return None if value is None else vars(value)

    first = arm.runs[0]
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
        "runs": [run.run_id for run in arm.runs],
    }


_SAMPLES = ("best_score", "test_value", "one_bit_test_value", "best_epoch")


def flat_rows(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """A row an arm, with a column for each figure."""
    return [
        {
            "data": entry["data"],
            **_flat(arm),
            **{key: entry[key] for key in ("monitor", "monitor_mode", "test_metric")},
        }
        for entry in plain(comparisons)
        for arm in entry["arms"]
    ]


def _flat(arm: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in arm.items():
        if key in _SAMPLES:
            for part in ("mean", "std", "low", "high"):
                flat[f"{key}_{part}"] = None if value is None else value[part]
        else:
            flat[key] = " ".join(value) if isinstance(value, list) else value
    return flat


def _cell(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def as_json(comparisons: Sequence[Comparison]) -> str:
    """`plain` as JSON."""
    return json.dumps(plain(comparisons), indent=2)


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """`flat_rows` as CSV."""
    rows = flat_rows(comparisons)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue().rstrip("\n")
