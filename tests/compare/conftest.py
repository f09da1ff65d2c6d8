"""What tests of comparisons share."""

import sys
import types

import pytest


class DataFrame:
    """A stand-in for pandas's: the rows, each filled up to all columns."""

    def __init__(self, data, columns):
        self.columns = list(columns)
        self.rows = [[row.get(column) for column in self.columns] for row in data]

    def __getitem__(self, column):
        return [row[self.columns.index(column)] for row in self.rows]


@pytest.fixture
def pandas(monkeypatch):
    """A module in the place of pandas, which is no dependency."""
    module = types.ModuleType("pandas")
    module.DataFrame = DataFrame
    monkeypatch.setitem(sys.modules, "pandas", module)
    return module


@pytest.fixture
def no_pandas(monkeypatch):
    """An interpreter that cannot import pandas."""
    monkeypatch.setitem(sys.modules, "pandas", None)
