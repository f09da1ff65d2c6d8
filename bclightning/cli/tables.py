"""What `bcl fit` and `bcl test` print at the end: results, size, time, and where to look."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bclightning.evaluation import EvaluationResult
from bclightning.formatting import describe_score, duration, megabytes, printable, score, short
from bclightning.runs.folder import RunFolder
from bclightning.runs.record import RunRecord
from bclightning.tracking.folders import how_to_look


def results_table(
    title: str, metric: str, results: Sequence[EvaluationResult], evaluation: tuple[str, str]
) -> Table:
    """Results by evaluation weights and batch-norm statistics.

    Args:
        title: Title of the table.
        metric: Name of the metric.
        results: The results.
        evaluation: Weights and statistics that stand for the run, which are marked.
    """
    heading = "error" if metric.endswith("/error") else metric
    # Texts, in which brackets are no markup.
    table = Table(title=Text(printable(title)), title_justify="left")
    table.add_column("evaluation weights")
    table.add_column("batch-norm statistics")
    table.add_column(Text(printable(heading)), justify="right")
    for result in results:
        mark = " *" if (result.weights, result.batch_norm) == evaluation else "  "
        cells = (result.weights, result.batch_norm, f"{score(metric, result.value)}{mark}")
        table.add_row(*(Text(printable(cell)) for cell in cells))
    return table


def print_report(console: Console, record: RunRecord, folder: RunFolder) -> None:
    """Print the closing table of a run and where to look next."""
    console.print()
    if record.test:
        title = f"{record.data}, {record.regularizer}, seed {record.seed}: test results"
        results = [
            EvaluationResult(entry["weights"], entry["batch_norm"], entry["value"])
            for entry in record.test
        ]
        evaluation = (
            record.evaluation.get("weights", ""),
            record.evaluation.get("batch_norm", ""),
        )
        console.print(results_table(title, record.test_metric, results, evaluation))
    rows = []
    if record.best_epoch is not None and record.best_score is not None:
        best = describe_score(record.monitor, record.best_score)
        marked = " under the evaluation marked *" if record.test else ""
        rows.append(("best epoch", f"{record.best_epoch + 1} of {record.epochs}: {best}{marked}"))
    rows.append(("time", duration(record.train_seconds)))
    rows.append(("size", describe_size(record)))
    rows.append(("run", str(folder.path)))
    width = max(len(label) for label, _ in rows)
    lines = [f"{label:<{width}}  {text}" for label, text in rows]
    mode = record.wandb.get("mode")
    # Each command has a line of its own, from which it can be copied whole.
    commands = []
    if record.best_epoch is not None and record.split_sizes:
        # It is known what images the network takes.
        commands.append(f"bcl export {folder.shell_name}")
    if mode in ("online", "offline"):
        commands += how_to_look(folder.path, mode)
    if commands:
        lines += ["", "next:", *commands]
    for line in lines:
        console.print(printable(line), highlight=False, soft_wrap=True, markup=False)


def describe_size(record: RunRecord) -> str:
    """The size of the network in 32 bits and with one bit a binary weight."""
    total = record.binary_weights + record.real_weights
    full = f"{megabytes(record.float_bytes)} in fp32"
    if not record.binary_weights:
        return f"{short(total)} weights, {full}"
    packed = megabytes(record.packed_bytes)
    return (
        f"{packed} with {short(record.binary_weights)} of {short(total)} weights in 1 bit, {full}"
    )
