"""What is printed at the end: errors by method, size, time, and where to look."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from bclightning.evaluation import EvaluationResult
from bclightning.formatting import duration, megabytes
from bclightning.runs.folder import RunFolder
from bclightning.runs.record import RunRecord
from bclightning.vocabulary import PAPER_METHODS


def method_table(title: str, errors: Sequence[EvaluationResult], chosen: tuple[str, str]) -> Table:
    """Errors by test-time method (section 2.6); the one that stands for the run is marked."""
    table = Table(title=title, title_justify="left")
    table.add_column("method")
    table.add_column("weights")
    table.add_column("batch-norm statistics")
    table.add_column("error", justify="right")
    for result in errors:
        mark = " *" if (result.weights, result.batch_norm) == chosen else "  "
        number = str(PAPER_METHODS[result.weights])
        table.add_row(number, result.weights, result.batch_norm, f"{result.value:.2f} %{mark}")
    return table


def print_report(console: Console, record: RunRecord, folder: RunFolder, look: list[str]) -> None:
    """Print the closing table of a run and where to look next."""
    errors = [EvaluationResult(**entry) for entry in record.test]
    chosen = (record.evaluation.get("weights", ""), record.evaluation.get("batch_norm", ""))
    console.print()
    if errors:
        title = f"{record.data}, {record.regularizer}, seed {record.seed}: test error"
        console.print(method_table(title, errors, chosen))
    rows = []
    if record.best_epoch is not None and record.best_score is not None:
        rows.append(
            (
                "best epoch",
                f"{record.best_epoch + 1} of {record.epochs}, by a validation error of "
                f"{record.best_score:.2f} % under the method marked *",
            )
        )
    rows.append(("time", duration(record.train_seconds)))
    rows.append(("size", describe_size(record)))
    rows.append(("run", str(folder.path)))
    rows.extend(("look", line) for line in look)
    width = max(len(label) for label, _ in rows)
    for label, text in rows:
        console.print(f"{label:<{width}}  {text}", highlight=False, soft_wrap=True, markup=False)


def describe_size(record: RunRecord) -> str:
    """The size of the network in 32 bits and with one bit a binary weight."""
    total = record.binary_weights + record.real_weights
    text = f"{total:,} parameters, {megabytes(record.float_bytes)} in fp32"
    if record.binary_weights:
        text += (
            f"; {megabytes(record.packed_bytes)} with its {record.binary_weights:,} "
            "binary weights in 1 bit each"
        )
    return text
