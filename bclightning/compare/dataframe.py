"""Data frames for users of pandas, which nothing else needs."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from bclightning.errors import UserError


def data_frame(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> Any:
    """A pandas DataFrame.

    Args:
        rows: Values of each row, by column.
        columns: Columns that come first, and are there without rows, too.

    Returns:
        A ``pandas.DataFrame``; a value that a row does not give is missing.

    Raises:
        UserError: pandas is not installed.
    """
    try:
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        raise UserError("to_dataframe needs pandas: pip install pandas") from error
    every = dict.fromkeys([*columns, *(key for row in rows for key in row)])
    return pandas.DataFrame([dict(row) for row in rows], columns=list(every))
