"""`bcl export`: a trained network as a file of one bit a weight."""

from dataclasses import dataclass
from typing import Literal

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console

from bclightning.cli.evaluate import add_run_argument, trained_network
from bclightning.errors import UserError
from bclightning.formatting import megabytes, printable
from bclightning.runs.config import RunConfig
from bclightning.runs.export import Format, export
from bclightning.vocabulary import AS_TRAINED, RE_ESTIMATED, BatchNormStatistics

DESCRIPTION = (
    "Write a run's network with one bit a binary weight. The written file is read again and tested "
    "before it takes its place."
)


@dataclass
class ExportOptions:
    """Options of `bcl export`.

    Args:
        output: File to write; RUN.safetensors, or RUN.onnx, in this folder if left out.
        format: packed, for bcl predict and bclightning.inference.load, or onnx, a graph that takes
            raw pixels. A whitening matrix of more than 1 MB lies in a second file beside either.
        batch_norm: Batch-norm statistics, as-trained or re-estimated with the binary weights on
            training images; those that stand for the run if left out.
        tolerance: Difference of the written model's test error from the run's that is allowed, in
            percentage points; 0.1, or one image, if left out.
        ckpt_path: Checkpoint to export; the run's best one if left out.
        image_shape: Shape of an image, as [3,32,32], for a data module of your own; that of its
            first test image if left out.
        class_names: Names of the classes, as [cat,dog], for a data module of your own that has no
            attribute class_names.
    """

    output: str | None = None
    format: Format = "packed"
    batch_norm: Literal["as-trained", "re-estimated"] | None = None
    tolerance: float | None = None
    ckpt_path: str | None = None
    image_shape: list[int] | None = None
    class_names: list[str] | None = None


_STATISTICS: dict[str | None, BatchNormStatistics | None] = {
    None: None,
    "as-trained": AS_TRAINED,
    "re-estimated": RE_ESTIMATED,
}


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the arguments of the command."""
    add_run_argument(parser)
    parser.add_class_arguments(ExportOptions, None)


def run(options: Namespace) -> int:
    """Export, and print what was written."""
    if options.tolerance is not None and not 0 <= options.tolerance <= 100:
        raise UserError("--tolerance lies between 0 and 100 percentage points")
    config = RunConfig.from_parsed(options, [ExportOptions])
    network = trained_network(config, options.ckpt_path, "export")
    written = export(
        network,
        options.output,
        format=options.format,
        batch_norm=_STATISTICS[options.batch_norm],
        tolerance=options.tolerance,
        image_shape=options.image_shape,
        class_names=options.class_names,
    )
    model = written.files[0]
    size = f"{megabytes(model.stat().st_size)}; {megabytes(written.float_bytes)} in fp32"
    rows = [
        (
            "test error",
            f"{written.error_of_run:.2f} % in the run, {written.error:.2f} % written",
        ),
        ("weights", f"binary, batch-norm statistics {written.batch_norm}"),
        ("size", size),
        ("files", ", ".join(map(str, written.files))),
    ]
    if written.input is None and written.takes_raw_images:
        rows.append(("use", f"bcl predict {model} --images IMAGE ..."))
    elif written.input is None:
        # How a data module of a user's own prepares images, it alone knows.
        rows.append(("use", f"bclightning.inference.load({str(model)!r})(prepared images)"))
    else:
        rows.append(("input", written.input))
    console = Console()
    for label, text in rows:
        line = f"{label:<10}  {printable(text)}"
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    return 0
