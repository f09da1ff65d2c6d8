"""The parts of a comparison: tables of arms and pairs, and how their figures came about."""

from collections.abc import Sequence
from dataclasses import dataclass

from bclightning.compare.arms import Arm, Comparison
from bclightning.compare.columns import NOTHING, shown_columns
from bclightning.compare.equivalence import Equivalence
from bclightning.compare.layout import Grid
from bclightning.compare.power import MAX_SEEDS
from bclightning.compare.statistics import Sample
from bclightning.vocabulary import BATCH_NORM_STATISTICS, PAPER_METHODS

PAPER_IN_WORDS = (
    "Our test errors less the paper's, in percentage points and in standard errors of that "
    "difference, tested like the pairs. The paper's figures are of the paper's protocol, whatever "
    "ours is."
)

SEEDS_IN_WORDS = (
    "Seeds to settle: how many runs of each arm would give the test a power of 80 % (noncentral t, "
    "corrected for the number of pairs) if the true means and spreads were those seen here; from a "
    "few runs it is a rough guide."
)


@dataclass(frozen=True)
class Section:
    """A part of a comparison.

    Attributes:
        grid: Its table.
        words: How its figures came about; may be empty.
    """

    grid: Grid
    words: str = ""


def arm_grids(comparison: Comparison, wanted: Sequence[str] | None = None) -> list[Grid]:
    """The table with a row an arm, where a line of any length can be shown: in two parts.

    Args:
        comparison: The comparison.
        wanted: Names of columns, which then make one table; the usual ones if ``None``.

    Raises:
        UserError: There is no such column.
    """
    columns = shown_columns(comparison, wanted)
    main = [column for column in columns if column.main]
    rest = [column for column in columns if column.name == "arm" or not column.main]
    parts = [columns] if wanted is not None else [main, *([rest] if len(rest) > 1 else [])]
    return [
        Grid(
            comparison.title if not place else "",
            [column.heading for column in part],
            [[column.cell(arm) for column in part] for arm in comparison.arms],
        )
        for place, part in enumerate(parts)
    ]


def arm_grid(comparison: Comparison, wanted: Sequence[str] | None = None) -> Grid:
    """The table with a row an arm in one part, for a terminal to divide.

    Raises:
        UserError: There is no such column.
    """
    columns = shown_columns(comparison, wanted)
    rows = [[column.cell(arm) for column in columns] for arm in comparison.arms]
    labels = int(bool(columns) and columns[0].name == "arm")
    return Grid(comparison.title, [column.heading for column in columns], rows, labels)


def sections(comparison: Comparison) -> list[Section]:
    """What follows the table of the arms, without what has no content."""
    found = [one_bit_section(comparison), paper_section(comparison), pair_section(comparison)]
    return [section for section in found if section is not None]


def one_bit_section(comparison: Comparison) -> Section | None:
    """Arms of one bit beside those of real weights, ``None`` where there are not both.

    With a margin and arms of one kind alone, it is each two arms.
    """
    tested = comparison.one_bit
    title = "one bit against float"
    if not tested and comparison.margin is not None:
        tested, title = comparison.equivalence(comparison.margin), "equivalence"
    if not tested:
        return None
    metric = comparison.tested_metric
    smaller = any(each.first_bytes > each.second_bytes > 0 for each in tested)
    headings = ["arm", "against", "difference", "90 % interval"]
    headings += ["verdict", "seeds to settle"] if comparison.margin is not None else []
    headings += ["times smaller"] if smaller else []
    headings.append("equivalent within")
    headings += ["p equivalent", "p different"] if comparison.margin is not None else []
    rows = []
    for each in tested:
        interval = within = NOTHING
        if each.low is not None and each.high is not None and each.least_margin is not None:
            interval = f"{metric.difference(each.low)} to {metric.difference(each.high)}"
            within = f"±{metric.number(each.least_margin)}"
        row = [each.second, each.first, metric.difference(each.difference), interval]
        if comparison.margin is not None:
            row += [each.verdict or NOTHING, _seeds(each.seeds, each.verdict == "not settled")]
        row += [_times(each)] if smaller else []
        row.append(within)
        if comparison.margin is not None:
            row += [p_text(each.p_holm), p_text(each.p_different_holm)]
        rows.append(row)
    return Section(Grid(title, headings, rows, labels=2), _equivalence_in_words(comparison, title))


def _times(each: Equivalence) -> str:
    if each.first_bytes <= 0 or each.second_bytes <= 0:
        return NOTHING
    return f"{each.first_bytes / each.second_bytes:.1f}"


def _equivalence_in_words(comparison: Comparison, title: str) -> str:
    metric = comparison.tested_metric
    unit = " percentage points" if metric.is_error else ""
    less = "with one bit a weight less those with real weights"
    if title == "equivalence":
        less = "of the arm less those of the one that it stands against"
    words = (
        f"Difference: {metric.plural} {less}{', in' if unit else ''}{unit}. "
        "The interval is by Welch's t, which assumes independent runs with "
        f"about normally distributed {'errors' if metric.is_error else 'values'} and not "
        "equal spread. Equivalent within: the smallest margin at which two one-sided t-tests "
        "(TOST, Schuirmann 1987) call the two equivalent at 5 %, each pair by itself"
    )
    if comparison.margin is None:
        return f"{words}; --margin tests a margin that was chosen beforehand."
    return (
        f"{words}. Verdict for a margin of ±{comparison.margin:g}{unit}, at 5 %: equivalent where "
        "both one-sided tests reject, else different where Welch's t-test does; each p is "
        f"corrected for the number of pairs by Holm's method. {SEEDS_IN_WORDS}"
    )


def _seeds(seeds: int | None, is_open: bool) -> str:
    if not is_open:
        return NOTHING
    return f"> {MAX_SEEDS}" if seeds is None else str(seeds)


def paper_section(comparison: Comparison) -> Section | None:
    """How far arms lie from the paper's figures, ``None`` where nothing is known of that."""
    if not comparison.beside_paper:
        return None
    arms = {arm.label: arm for arm in comparison.arms}
    rows = [
        (
            pair.second,
            str(arms[pair.second].test),
            str(arms[pair.second].paper),
            comparison.test_metric.difference(pair.difference),
            NOTHING if pair.standard_errors is None else f"{pair.standard_errors:+.1f}",
            p_text(pair.p),
            p_text(pair.p_holm),
        )
        for pair in comparison.beside_paper
    ]
    headings = ("arm", "ours", "paper", "ours less paper", "standard errors", "p", "p corrected")
    return Section(Grid("beside the paper", headings, rows), PAPER_IN_WORDS)


def pair_section(comparison: Comparison) -> Section | None:
    """A row for each pair of arms, ``None`` where no two were tested."""
    if not comparison.pairs:
        return None
    metric = comparison.tested_metric
    headings = (
        *("arm", "against", f"difference of {metric.plural}"),
        *("p", "p corrected", "seeds to settle"),
    )
    rows = [
        (
            pair.second,
            pair.first,
            metric.difference(pair.difference),
            p_text(pair.p),
            p_text(pair.p_holm),
            _seeds(pair.seeds, pair.p_holm is not None and pair.p_holm >= 0.05),
        )
        for pair in comparison.pairs
    ]
    values = "errors" if metric.is_error else "values"
    words = (
        "Difference: the arm less the one that it stands against. p: Welch's t-test, two-sided, "
        f"which assumes independent runs with about normally distributed {values} and not equal "
        f"spread; corrected for the number of pairs by Holm's method. {SEEDS_IN_WORDS}"
    )
    return Section(Grid("pairs", headings, rows, labels=2), words)


def p_text(value: float | None) -> str:
    """A p-value with four decimals."""
    if value is None:
        return NOTHING
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def evaluation_grid(comparison: Comparison) -> Grid | None:
    """Test results by evaluation weights and batch-norm statistics, ``None`` where there are none.

    A row is an arm, and a column what was measured of any.
    """
    columns = {
        f"{weights}, BN {batch_norm}": [
            arm.test_with(weights, batch_norm) for arm in comparison.arms
        ]
        for weights in PAPER_METHODS
        for batch_norm in BATCH_NORM_STATISTICS
    }
    measured = {heading: samples for heading, samples in columns.items() if any(samples)}
    if not measured:
        return None

    def cell(arm: Arm, sample: Sample | None) -> str:
        shown = comparison.test_metric.show(sample)
        other = sample is not None and sample.n != len(arm.runs)
        return f"{shown} (n = {sample.n})" if other and sample else shown

    rows = [
        [arm.label, *(cell(arm, samples[place]) for samples in measured.values())]
        for place, arm in enumerate(comparison.arms)
    ]
    return Grid("evaluation weights", ["arm", *measured], rows)
