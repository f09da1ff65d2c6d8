"""Tables of a terminal: no character is cut, whatever its width."""

import io
import re

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from bclightning.compare.layout import Grid, table_width, terminal_tables

cells = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=25)


def printed(tables, width=80) -> str:
    console = Console(
        file=io.StringIO(), width=max([width, *map(table_width, tables)]), color_system=None
    )
    for table in tables:
        console.print(table)
    return console.file.getvalue()


@given(st.data(), st.integers(20, 120), st.integers(1, 5), st.integers(1, 3))
def test_no_character_is_cut_at_any_width(data, width, columns, rows):
    def line():
        return data.draw(st.lists(cells, min_size=columns, max_size=columns))

    grid = Grid("title", line(), [line() for _ in range(rows)])
    shown = "".join(printed(terminal_tables(grid, width), width).split())
    # All that was in is shown: each character as often as in the cells, or more for labels.
    for text in [*grid.headings, *(cell for row in grid.rows for cell in row)]:
        for word in re.split(r"\s|, ", text):
            if word.isprintable():
                assert "".join(word.split()) in shown
    assert "…" not in shown or "…" in "".join(map(str, [grid.headings, grid.rows]))


@given(st.integers(40, 200), st.integers(2, 9))
def test_tables_fit_where_each_column_does(width, columns):
    words = ["1.23 ± 0.04" for _ in range(columns)]
    grid = Grid("mnist", ["arm", *["validation error %"] * columns], [["none", *words]] * 2)
    tables = terminal_tables(grid, width)
    lines = printed(tables, width).splitlines()
    assert max(map(cell_len, lines)) <= width
    # The width that is said is the one that is needed.
    for table in tables:
        rule = next(line for line in printed([table]).splitlines() if "─" in line)
        assert cell_len(rule.rstrip()) == table_width(table)
        assert table.columns[0].header.plain == "arm"
    assert sum(len(table.columns) - 1 for table in tables) == columns
