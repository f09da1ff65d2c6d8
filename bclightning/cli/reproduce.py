"""`bcl reproduce`: whether a record is true here."""

from dataclasses import dataclass

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console
from rich.table import Table

from bclightning.runs.config import NamedRun, RunConfig, add_allow_code
from bclightning.runs.metrics_csv import EPOCH
from bclightning.runs.progress import RunProgress
from bclightning.runs.reproduce import BAND, Reproduction, reproduce
from bclightning.vocabulary import TRAIN_LOSS, VAL_ERROR, VAL_LOSS

DESCRIPTION = (
    "Train the first epochs of a recorded run again, from its record alone, and compare them with "
    "the recorded metrics. Further options, such as --data.root, say where things are here."
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
    console.print(_table(result))
    if result.changed:
        changes = "; ".join(result.changed)
        console.print(f"not as recorded: {changes}", highlight=False, soft_wrap=True)
    console.print(_verdict(result), highlight=False, soft_wrap=True)
    return 0 if result.succeeded else 1


def _table(result: Reproduction) -> Table:
    apart = {(different.epoch, different.metric): different for different in result.differences}
    table = Table(title=f"{result.record.run_id}, recorded and again", title_justify="left")
    for header in ("epoch", "metric", "recorded", "again"):
        table.add_column(header, justify="left" if header == "metric" else "right")
    shown = dict.fromkeys((TRAIN_LOSS, VAL_ERROR, VAL_LOSS, result.record.monitor))
    for row in result.rows:
        epoch = int(row[EPOCH])
        for metric in shown:
            if metric in row:
                other = apart.get((epoch, metric))
                again = "the same" if other is None else "-"
                if other is not None and other.again is not None:
                    again = f"{other.again:.6g}"
                table.add_row(str(epoch + 1), metric, f"{row[metric]:.6g}", again)
    return table


def _verdict(result: Reproduction) -> str:
    count = f"{len(result.differences)} of {result.metrics}"
    if result.exact:
        return f"bit for bit the same: {result.metrics} metrics of {len(result.rows)} epochs"
    if not result.changed:
        return (
            f"NOT reproduced: {count} metrics differ, though machine, versions and code are those "
            "of the record"
        )
    if result.within_band:
        return f"within the band ({BAND}), not bit for bit: {count} differ"
    return f"NOT reproduced: outside the band ({BAND})"
