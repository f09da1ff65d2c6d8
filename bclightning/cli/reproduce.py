"""`bcl reproduce`: whether a record is true here."""

from dataclasses import dataclass

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bclightning.formatting import printable
from bclightning.runs.config import NamedRun, RunConfig, add_allow_code
from bclightning.runs.metrics_csv import EPOCH
from bclightning.runs.progress import RunProgress
from bclightning.runs.reproduce import BAND, Reproduction, reproduce
from bclightning.vocabulary import TRAIN_LOSS, VAL_ERROR, VAL_LOSS

DESCRIPTION = (
    "Compare the files of a recorded run with each other, train its first epochs again, and "
    "compare them with the recorded metrics. The recorded test results are compared too where the "
    "run's checkpoint is there, or where all its epochs are trained again. Further options, such "
    "as --data.root, say where things are here."
)


@dataclass
class ReproduceOptions:
    """Options of `bcl reproduce`.

    Args:
        epochs: Number of epochs to train again.
    """

    epochs: int = 2


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "run", metavar="RUN", action=NamedRun, help="Folder of a run, as in results/mnist/."
    )
    add_allow_code(parser)
    parser.add_class_arguments(ReproduceOptions, None)


def run(options: Namespace) -> int:
    """Reproduce a run, and print both curves and the verdict.

    Returns:
        0 where the record is true here, else 1.
    """
    config = RunConfig.from_parsed(options, [ReproduceOptions])
    progress = RunProgress(epochs=options.epochs)
    result = reproduce(config, epochs=options.epochs, callbacks=[progress])
    console = Console()
    if result.rows:
        console.print(_table(result))
    if result.changed:
        _say(console, f"not as recorded: {'; '.join(result.changed)}")
    for one in result.disagreements:
        _say(console, f"contradiction: {one}")
    _say(console, _verdict(result))
    if result.rows:
        _say(console, _scope(result))
    return 0 if result.succeeded else 1


def _say(console: Console, text: str) -> None:
    console.print(printable(text), highlight=False, markup=False, soft_wrap=True)


def _table(result: Reproduction) -> Table:
    apart = {(different.epoch, different.metric): different for different in result.differences}
    table = Table(title=f"{result.record.run_id}, recorded and again", title_justify="left")
    for header in ("epoch", "metric", "recorded", "again"):
        table.add_column(header, justify="left" if header == "metric" else "right")
    shown = dict.fromkeys((TRAIN_LOSS, VAL_ERROR, VAL_LOSS, result.record.monitor))
    for row in result.rows:
        epoch = int(row[EPOCH])
        for metric in shown:
            different = apart.get((epoch, metric))
            if metric in row or different is not None:
                again = "the same" if different is None else _number(different.again)
                table.add_row(
                    str(epoch + 1), Text(printable(metric)), _number(row.get(metric)), again
                )
    for different in result.differences:
        if different.metric.startswith(f"{result.record.test_metric} ("):
            values = (_number(different.recorded), _number(different.again))
            table.add_row(str(different.epoch + 1), Text(printable(different.metric)), *values)
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"


def _verdict(result: Reproduction) -> str:
    total = result.metrics + result.tested
    count = f"{len(result.differences)} of {total}"
    if result.disagreements:
        return (
            "NOT reproduced: the record contradicts the run's own files or what follows from them"
        )
    if not result.metrics:
        return "NOT reproduced: nothing was compared, since metrics.csv has no metrics"
    if result.exact:
        tests = f", and {result.tested} test results" if result.tested else ""
        return f"bit for bit the same: {result.metrics} metrics of {len(result.rows)} epochs{tests}"
    if not result.changed:
        return (
            f"NOT reproduced: {count} values differ, though machine, versions and code are those "
            "of the record"
        )
    if result.within_band:
        return f"within the band ({BAND}), not bit for bit: {count} differ"
    return f"NOT reproduced: outside the band ({BAND})"


def _scope(result: Reproduction) -> str:
    """What was compared, and what was not."""
    done = ["run.json with config.yaml and metrics.csv", f"{len(result.rows)} epochs"]
    left = []
    if len(result.rows) < result.epochs:
        left.append(f"{result.epochs - len(result.rows)} later epochs (--epochs {result.epochs})")
    results = f"{len(result.record.test)} test results"
    if result.tested:
        done.append(results)
    elif result.record.test:
        left.append(f"{results}, which need the run's checkpoint or all its epochs")
    return f"compared: {', '.join(done)}; not compared: {', '.join(left) or 'nothing'}"
