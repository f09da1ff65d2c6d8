"""The table of a run's metrics."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bclightning.runs.metrics_csv import MetricsTable, shortest

numbers = st.floats(allow_nan=False, allow_infinity=False)
rows = st.lists(st.dictionaries(st.sampled_from(["a", "b/c", "d"]), numbers), max_size=5)


@given(rows)
def test_metrics_come_back_with_all_their_digits(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("run") / "metrics.csv"
    table = MetricsTable(path)
    for epoch, row in enumerate(rows):
        table.append(epoch, row)
    again = MetricsTable(path)
    assert again.rows == [{"epoch": epoch, **row} for epoch, row in enumerate(rows)]
    if rows:
        before = path.read_bytes()
        again.append(len(rows) - 1, rows[-1])
        assert path.read_bytes() == before


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_the_shortest_form_is_the_same_single(value):
    short = shortest(value)
    assert np.float32(short) == np.float32(value)
    assert len(str(short)) <= len(str(value))


def test_rows_that_a_checkpoint_does_not_hold_are_cut(tmp_path):
    table = MetricsTable(tmp_path / "metrics.csv")
    for epoch in range(4):
        table.append(epoch, {"x": float(epoch)})
    MetricsTable(table.path).cut_after(1)
    assert [row["epoch"] for row in MetricsTable(table.path).rows] == [0, 1]
    # An epoch that is trained again takes the place of what was there.
    table.append(2, {"x": 9.0})
    assert [row["x"] for row in table.rows] == [0, 1, 9]
