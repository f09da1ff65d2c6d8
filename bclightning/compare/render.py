"""A comparison as tables for a terminal, as Markdown or as plain text; nothing prints."""

from collections.abc import Callable, Sequence

from rich.table import Table
from rich.text import Text

from bclightning.compare.arms import Comparison
from bclightning.compare.layout import markdown_table, terminal_tables, text_table
from bclightning.compare.sections import arm_grid, arm_grids, sections
from bclightning.formatting import markdown_text, printable


def terminal_parts(
    comparison: Comparison, width: int, wanted: Sequence[str] | None = None
) -> list[Table | Text | str]:
    """A comparison for people at a terminal.

    Args:
        comparison: The comparison.
        width: Columns of the terminal.
        wanted: Names of the columns of the table of arms; the usual ones if ``None``.

    Returns:
        Tables, explanations of them, which may be wrapped, and notes, which should not be.

    Raises:
        UserError: There is no such column.
    """
    parts: list[Table | Text | str] = [*terminal_tables(arm_grid(comparison, wanted), width)]
    for section in sections(comparison):
        parts += terminal_tables(section.grid, width)
        if section.words:
            parts.append(Text(section.words, style="dim"))
    return [*parts, *map(printable, comparison.notes)]


def markdown(comparisons: Sequence[Comparison], wanted: Sequence[str] | None = None) -> str:
    """Each comparison as Markdown."""
    return _written(comparisons, wanted, "**{}**", markdown_table, markdown_text)


def plain_text(comparisons: Sequence[Comparison], wanted: Sequence[str] | None = None) -> str:
    """Each comparison as plain text."""
    return _written(comparisons, wanted, "{}", text_table, printable)


def _written(
    comparisons: Sequence[Comparison],
    wanted: Sequence[str] | None,
    title: str,
    table: Callable[[Sequence[str], Sequence[Sequence[str]]], str],
    text: Callable[[str], str],
) -> str:
    parts = []
    for comparison in comparisons:
        parts.append(title.format(text(comparison.title)))
        parts += [table(grid.headings, grid.rows) for grid in arm_grids(comparison, wanted)]
        for section in sections(comparison):
            parts.append(title.format(text(section.grid.title)))
            parts.append(table(section.grid.headings, section.grid.rows))
            parts += [text(section.words)] if section.words else []
        parts.extend(map(text, comparison.notes))
    return "\n\n".join(parts)
