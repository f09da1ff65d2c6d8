"""The table of a run's metrics: one row per epoch, complete on the disk at every moment."""

import csv
import io
from pathlib import Path

import numpy as np

from bclightning.errors import MachineError, UserError
from bclightning.storage import write_text

EPOCH = "epoch"


def shortest(value: float) -> float:
    """The number with the fewest digits that is equal in single precision, which metrics have.

    Example:
        >>> shortest(2.1600000858306885)
        2.16
    """
    return float(str(np.float32(value)))


class MetricsTable:
    """Metrics by epoch in a CSV file that is replaced whole at each row.

    Floats are written with all the digits they have, so that reading and writing again changes
    nothing.

    Args:
        path: The CSV file; rows that are there already are read.

    Raises:
        UserError: The file is not a table of metrics; the sentence says where.

    Example:
        >>> import tempfile
        >>> table = MetricsTable(Path(tempfile.mkdtemp()) / "metrics.csv")
        >>> table.append(0, {"val/error": 2.5})
        >>> print(table.path.read_text())
        epoch,val/error
        0,2.5
        <BLANKLINE>
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        try:
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = [_numbers(row) for row in csv.DictReader(file)]
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise MachineError(f"{path} cannot be read: {error.strerror}") from error
        except (csv.Error, ValueError) as error:
            raise UserError(f"{path} is not a table of metrics: {error}") from error

    def append(self, epoch: int, metrics: dict[str, float]) -> None:
        """Add the row of an epoch; rows of this and later epochs, of a stopped run, make room."""
        self.rows = [row for row in self.rows if row[EPOCH] < epoch]
        self.rows.append({EPOCH: float(epoch), **metrics})
        self._write()

    def cut_after(self, epoch: int) -> None:
        """Drop the rows of epochs after `epoch`, which a checkpoint does not contain."""
        if any(row[EPOCH] > epoch for row in self.rows):
            self.rows = [row for row in self.rows if row[EPOCH] <= epoch]
            self._write()

    def _write(self) -> None:
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, EPOCH: int(row[EPOCH])} for row in self.rows)
        write_text(self.path, text.getvalue())


def _numbers(row: dict[str | None, str | list[str] | None]) -> dict[str, float]:
    """The numbers of a row, which has none where a cell is empty.

    Raises:
        ValueError: A cell holds something else, or the row has no epoch or too many cells.
    """
    numbers = {}
    for key, text in row.items():
        if key is None or isinstance(text, list):
            raise ValueError("a row has more cells than there are columns")
        if text:
            numbers[key] = float(text)
    epoch = numbers.get(EPOCH, -1.0)
    if not (epoch >= 0 and epoch.is_integer()):
        raise ValueError(f"a row has the epoch {row.get(EPOCH)!r}")
    return numbers
