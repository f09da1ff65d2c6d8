"""A comparison as a table, as Markdown, CSV or JSON."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bclightning.compare.comparison import Comparison, Row
from bclightning.compare.statistics import Sample
from bclightning.formatting import duration, megabytes
from bclightning.vocabulary import PAPER_METHODS

TEST_IN_WORDS = (
    "p: Welch's t-test, two-sided, which assumes independent runs with about normally distributed "
    "errors and not equal spread; corrected for the number of pairs by Holm's method."
)

PAPER_IN_WORDS = (
    "Our test errors less the paper's, in percentage points and in standard errors of that "
    "difference, tested like the pairs. The paper's figures are of the paper's protocol, whatever "
    "ours is."
)

HEADINGS = (
    "method",
    "n",
    "validation error %",
    "test error %",
    "95 % interval",
    "test-time weights",
    "1-bit test error %",
    "best epoch",
    "time",
    "1-bit size",
    "paper %",
)

# Columns of the terminal that all headings need, and the groups that fit into half of it.
WIDE = 150
NARROW = ((0, 1, 2, 3, 4, 10), (0, 5, 6, 7, 8, 9))


def cells(row: Row) -> tuple[str, ...]:
    """The row of a table, in the order of `HEADINGS`."""
    first = row.runs[0]
    shown = row.test or row.validation
    return (
        row.label,
        str(len(row.runs)),
        str(row.validation),
        _text(row.test),
        # Where nothing was tested, the interval is of the validation error and says so.
        shown.interval if row.test else f"{shown.interval} (validation)",
        row.chosen,
        _text(row.one_bit),
        f"{row.best_epoch.mean:.0f} of {first.epochs}",
        duration(row.seconds),
        megabytes(first.packed_bytes) if first.binary_weights else "-",
        _text(row.paper),
    )


def _text(sample: Sample | None) -> str:
    return "-" if sample is None else str(sample)


def method_table(comparison: Comparison) -> str:
    """Test errors by test-time weights and batch-norm statistics, in Markdown; may be empty."""
    kinds = [(weights, bn) for weights in PAPER_METHODS for bn in ("as trained", "re-estimated")]
    found = {
        row.label: [row.test_with(weights, statistics) for weights, statistics in kinds]
        for row in comparison.rows
    }
    shown = [
        place for place in range(len(kinds)) if any(samples[place] for samples in found.values())
    ]
    if not shown:
        return ""
    headings = [f"{PAPER_METHODS[weights]} {weights}, BN {bn}" for weights, bn in kinds]
    rows = [
        [label, *(_cell(samples[place]) for place in shown)] for label, samples in found.items()
    ]
    return markdown_table(["method", *(headings[place] for place in shown)], rows)


def _cell(sample: Sample | None) -> str:
    return "-" if sample is None else f"{sample} (n = {sample.n})"


PAPER_HEADINGS = (
    "method",
    "ours",
    "paper",
    "difference",
    "standard errors",
    "p",
    "p corrected",
)


def paper_cells(comparison: Comparison) -> list[tuple[str, ...]]:
    """How far rows lie from the paper's figures, in the order of `PAPER_HEADINGS`; may be empty."""
    rows = {row.label: row for row in comparison.rows}
    return [
        (
            pair.second,
            _text(rows[pair.second].test),
            _text(rows[pair.second].paper),
            f"{pair.difference:+.2f}",
            "-" if pair.standard_errors is None else f"{pair.standard_errors:+.1f}",
            _p(pair.p),
            _p(pair.p_holm),
        )
        for pair in comparison.beside_paper
    ]


def pair_cells(comparison: Comparison) -> list[tuple[str, ...]]:
    """A row for each pair of methods: names, difference, p and corrected p."""
    return [
        (pair.first, pair.second, f"{pair.difference:+.2f}", _p(pair.p), _p(pair.p_holm))
        for pair in comparison.pairs
    ]


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def pair_headings(comparison: Comparison) -> tuple[str, ...]:
    """Headings of `pair_cells`."""
    return ("method", "against", f"difference of {comparison.on} errors", "p", "p corrected")


def print_tables(console: Console, comparisons: Sequence[Comparison]) -> None:
    """Print each comparison as tables for people."""
    every = tuple(range(len(HEADINGS)))
    for comparison in comparisons:
        rows = [cells(row) for row in comparison.rows]
        # What does not fit into a narrow terminal side by side comes one below the other.
        for shown in (every,) if console.width >= WIDE else NARROW:
            headings = [HEADINGS[index] for index in shown]
            some = [[row[index] for index in shown] for row in rows]
            _print_table(console, comparison.data, headings, some)
        if comparison.beside_paper:
            _print_table(console, "beside the paper", PAPER_HEADINGS, paper_cells(comparison))
            console.print(PAPER_IN_WORDS, highlight=False, style="dim")
        if comparison.pairs:
            headings = list(pair_headings(comparison))
            _print_table(console, "pairs", headings, pair_cells(comparison))
            console.print(TEST_IN_WORDS, highlight=False, style="dim")
        for note in comparison.notes:
            console.print(note, highlight=False, soft_wrap=True, markup=False)


def _print_table(
    console: Console, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    # A label of several settings has a line for each, or it would leave no room for figures.
    rows = [[cell.replace(", ", ",\n") for cell in row] for row in rows]
    for heading, *column in zip(headings, *rows, strict=True):
        words = [word for cell in (heading, *column) for word in cell.split()]
        table.add_column(
            heading,
            min_width=max(map(len, words)),
            no_wrap=heading in ("method", "against"),
        )
    for row in rows:
        table.add_row(*row)
    console.print(table)


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    Example:
        >>> print(markdown_table(["a", "b"], [["1", "2"]]))
        | a | b |
        |---|---|
        | 1 | 2 |
    """
    lines = [headings, ["---"] * len(headings), *rows]
    texts = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    texts[1] = texts[1].replace(" ", "")
    return "\n".join(texts)


def markdown(comparisons: Sequence[Comparison]) -> str:
    """Each comparison as Markdown."""
    parts = []
    for comparison in comparisons:
        parts.append(f"**{comparison.data}**")
        parts.append(markdown_table(HEADINGS, [cells(row) for row in comparison.rows]))
        if comparison.beside_paper:
            parts += [markdown_table(PAPER_HEADINGS, paper_cells(comparison)), PAPER_IN_WORDS]
        if comparison.pairs:
            parts.append(markdown_table(pair_headings(comparison), pair_cells(comparison)))
            parts.append(TEST_IN_WORDS)
        parts.extend(comparison.notes)
    return "\n\n".join(parts)


def plain(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """All figures of each comparison as plain data, with every digit."""
    return [
        {
            "data": comparison.data,
            "rows": [_plain_row(row) for row in comparison.rows],
            "pairs": [vars(pair) for pair in comparison.pairs],
            "pairs_on": comparison.on,
            "beside_paper": [vars(pair) for pair in comparison.beside_paper],
            "settings": comparison.varied,
            "notes": list(comparison.notes),
        }
        for comparison in comparisons
    ]


def _plain_row(row: Row) -> dict[str, Any]:
    def sample(value: Sample | None) -> dict[str, Any] | None:
        return None if value is None else vars(value)

    first = row.runs[0]
    return {
        "method": row.label,
        "n": len(row.runs),
        "validation_error": sample(row.validation),
        "test_error": sample(row.test),
        "test_weights": row.chosen,
        "one_bit_test_error": sample(row.one_bit),
        "best_epoch": sample(row.best_epoch),
        "epochs": first.epochs,
        "train_seconds": row.seconds,
        "packed_bytes": first.packed_bytes,
        "float_bytes": first.float_bytes,
        "paper": None if row.paper is None else str(row.paper),
        "runs": [run.run_id for run in row.runs],
    }


def as_json(comparisons: Sequence[Comparison]) -> str:
    """`plain` as JSON."""
    return json.dumps(plain(comparisons), indent=2)


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """A line a row, with a column for each figure."""
    text = io.StringIO()
    writer: csv.DictWriter[str] | None = None
    for entry in plain(comparisons):
        for row in entry["rows"]:
            flat: dict[str, Any] = {"data": entry["data"]}
            for key, value in row.items():
                if key in _SAMPLES:
                    for part in ("mean", "std", "low", "high"):
                        flat[f"{key}_{part}"] = "" if value is None else value[part]
                else:
                    flat[key] = " ".join(value) if isinstance(value, list) else value
            if writer is None:
                writer = csv.DictWriter(text, list(flat), lineterminator="\n")
                writer.writeheader()
            writer.writerow(flat)
    return text.getvalue().rstrip("\n")


_SAMPLES = ("validation_error", "test_error", "one_bit_test_error", "best_epoch")
