"""Tables as text: for a terminal of some width, as plain text, as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from bclightning.formatting import markdown_text, printable

# Between two columns of a terminal's table: padding, and Rich's divider.
GAP = 2


@dataclass(frozen=True)
class Grid:
    """Headings and cells in plain text.

    Attributes:
        title: Title of the table.
        headings: A heading for each column.
        rows: The cells of each row.
        labels: Number of columns that say what a row is of; they come first.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1


def terminal_tables(grid: Grid, width: int) -> list[Table]:
    """Tables for a terminal: as few as show all columns, each with the labels.

    No cell is wrapped or cut: a single column that is wider than the terminal makes a table that
    is, see `table_width`.

    Args:
        grid: What is shown.
        width: Columns of the terminal.
    """
    lines = [[_lines(cell) for cell in row] for row in grid.rows]
    headings = [printable(heading) for heading in grid.headings]
    widths = [
        max(map(cell_len, [*heading.split(), *(line for row in lines for line in row[place])]))
        for place, heading in enumerate(headings)
    ]
    labels = list(range(grid.labels))
    groups: list[list[int]] = []
    for place in range(grid.labels, len(headings)):
        if not groups or _width([widths[each] for each in [*groups[-1], place]]) > width:
            groups.append([*labels])
        groups[-1].append(place)
    tables = []
    for number, group in enumerate(groups or [labels]):
        title = f"{grid.title} (continued)" if number else grid.title
        # Texts, in which brackets are no markup.
        table = Table(
            title=Text(printable(title)),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, GAP - 1, 0, 0),
            show_edge=False,
            pad_edge=False,
        )
        for place in group:
            heading = Text("\n".join(_fitted(headings[place], widths[place])))
            table.add_column(heading, width=widths[place], no_wrap=True)
        for row in lines:
            table.add_row(*(Text("\n".join(row[place])) for place in group))
        tables.append(table)
    return tables


def _fitted(heading: str, width: int) -> list[str]:
    """The lines of a heading whose longest word is no longer than the width."""
    lines: list[str] = []
    for word in heading.split():
        if lines and cell_len(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def table_width(table: Table) -> int:
    """Columns that a table of `terminal_tables` needs."""
    return _width([column.width or 0 for column in table.columns])


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _lines(cell: str) -> list[str]:
    # A label of several settings has a line for each, or it would leave no room for figures.
    return printable(cell).replace(", ", ",\n").split("\n")


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
