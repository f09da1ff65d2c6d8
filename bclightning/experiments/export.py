"""`bcl export`: a trained network as a packed file that runs without the code of training."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from bclightning import __version__
from bclightning.data import ImageDataModule
from bclightning.errors import UserError
from bclightning.experiments.evaluate import rebuilt, statistics_batches
from bclightning.experiments.folder import RunFolder
from bclightning.experiments.record import RunRecord
from bclightning.experiments.units import megabytes
from bclightning.inference import BatchNorm, PackedModel, PackedNetwork, chosen_method, error_rate
from bclightning.inference.methods import Batches
from bclightning.inference.onnx import as_onnx, onnx_scores
from bclightning.nn import evaluating_with, reestimate_batch_norm_
from bclightning.storage import replacing
from bclightning.training import Classifier
from bclightning.training.cli import take_option

# In percentage points. Sums in another order, and products that were rounded to bfloat16 when the
# run was tested, move a few images of ten thousand over the edge.
TOLERANCE = 0.1

OPTIONS = {
    "--output": "The file to write; RUN.safetensors, or RUN.onnx, in this folder when left out.",
    "--format": "packed, for bcl predict and bclightning.inference.load, or onnx.",
    "--batch-norm": "Batch-norm statistics: as-trained or re-estimated with the binary weights, on "
    "training images. What the run's own method uses when left out.",
    "--tolerance": "How far the test error of the written model may be from the run's, in "
    f"percentage points; {TOLERANCE}, or one image, when left out.",
}


@dataclass(frozen=True)
class _Wanted:
    output: Path | None
    onnx: bool
    batch_norm: BatchNorm | None
    tolerance: float | None

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> tuple["_Wanted", list[str]]:
        rest, values = list(arguments), {}
        for option in OPTIONS:
            values[option], rest = take_option(rest, option)
        formats = {None: False, "packed": False, "onnx": True}
        statistics: dict[str | None, BatchNorm | None] = {
            None: None,
            "as-trained": "as trained",
            "re-estimated": "re-estimated",
        }
        if values["--format"] not in formats:
            raise UserError(f"--format is packed or onnx, and not {values['--format']!r}")
        if values["--batch-norm"] not in statistics:
            raise UserError(
                f"--batch-norm is as-trained or re-estimated, and not {values['--batch-norm']!r}"
            )
        tolerance = values["--tolerance"]
        try:
            number = None if tolerance is None else float(tolerance)
        except ValueError:
            raise UserError(f"--tolerance is a number, and {tolerance!r} is none") from None
        if number is not None and not 0 <= number <= 100:
            raise UserError("--tolerance lies between 0 and 100 percentage points")
        output = values["--output"]
        return cls(
            None if output is None else Path(output),
            formats[values["--format"]],
            statistics[values["--batch-norm"]],
            number,
        ), rest


def export(arguments: Sequence[str]) -> Path:
    """Run `bcl export RUN`: write the run's network with one bit a binary weight.

    The written file is read again and tested on the test set.

    Raises:
        UserError: The run has no binary weights, or its network is not a chain of layers, or the
            written model's test error is not the run's; then no file is left.
    """
    wanted, rest = _Wanted.parse(arguments)
    if rest and not rest[0].startswith("-"):
        rest = ["--run", *rest]
    network, datamodule, _, name = rebuilt(rest, "export", OPTIONS)
    if not isinstance(datamodule, ImageDataModule):
        raise UserError("bcl export needs one of the package's image data sets, to say what images")
    record = _record_of(name)
    statistics = wanted.batch_norm or chosen_method(network)[1]
    model, error_of_run = _packed(network, datamodule, statistics, record)
    tests = list(datamodule.test_dataloader())
    ending = "onnx" if wanted.onnx else "safetensors"
    output = wanted.output or Path(f"{record.run_id}.{ending}")
    tolerance = wanted.tolerance
    if tolerance is None:
        tolerance = max(TOLERANCE, 100.0 / sum(len(labels) for _, labels in tests) + 1e-9)
    console = Console()
    console.print(f"testing {output} ...", highlight=False, soft_wrap=True)
    files = _write(model, output, wanted.onnx, tests, error_of_run, tolerance)
    written = sum(path.stat().st_size for path in files[:1])
    about = model.about
    rows = [
        ("test error", f"{error_of_run:.2f} % in the run, {about['test_error']:.2f} % as written"),
        ("method", f"binary weights, batch-norm statistics {statistics}"),
        ("size", f"{megabytes(written)}; {megabytes(model.float_bytes)} in fp32"),
        ("files", ", ".join(map(str, files))),
    ]
    if not wanted.onnx:
        rows.append(("use", f"bcl predict {output} --images IMAGE ..."))
    for label, text in rows:
        console.print(f"{label:<10}  {text}", highlight=False, soft_wrap=True, markup=False)
    return output


def _record_of(name: str) -> RunRecord:
    return RunRecord.read(RunFolder.find(name).record)


def _packed(
    network: Classifier,
    datamodule: ImageDataModule,
    statistics: BatchNorm,
    record: RunRecord,
) -> tuple[PackedModel, float]:
    """The packed model, and the test error that the run's network has with such weights."""
    about: dict[str, Any] = {
        "bclightning": __version__,
        "run": record.run_id,
        "method": record.method,
        "data": record.data,
        "seed": record.seed,
        "commit": (record.git or {}).get("commit"),
        "weights": "binary",
        "batch_norm": statistics,
        "validation_error": record.validation_error,
    }
    datamodule.setup("test")
    with evaluating_with(network, "binary"):
        if statistics == "re-estimated":
            images = (images for images, _ in statistics_batches(datamodule))
            reestimate_batch_norm_(network, images)
        error = _recorded(record, statistics)
        if error is None:
            error = error_rate(network, datamodule.test_dataloader())
    about["error_of_run"] = error
    model = PackedModel.of(
        network.network,
        datamodule.image_shape,
        datamodule.class_names,
        datamodule.preprocessing(),
        about,
    )
    return model, error


def _recorded(record: RunRecord, statistics: BatchNorm) -> float | None:
    for entry in record.test:
        if (entry["weights"], entry["batch_norm"]) == ("binary", statistics):
            return float(entry["error"])
    return None


def _write(
    model: PackedModel,
    output: Path,
    onnx: bool,
    tests: Sequence[tuple[torch.Tensor, torch.Tensor]],
    expected: float,
    tolerance: float,
) -> list[Path]:
    """Write where nobody looks, test what can be read of it there, and only then here."""
    if not output.parent.is_dir():
        raise UserError(f"there is no folder {output.parent} for {output.name}")
    network = PackedNetwork(model, "float32")
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as folder:
        trial = Path(folder) / output.name
        if onnx:
            trial.write_bytes(as_onnx(model))
            error = _error_in_onnx(trial, network, tests)
        else:
            model.write(trial)
            error = error_rate(PackedNetwork(PackedModel.read(trial), "float32"), tests)
    if abs(error - expected) > tolerance:
        raise UserError(
            f"the packed model's test error is {error:.2f} % and the run's {expected:.2f} %, which "
            f"is more than {tolerance:.2f} percentage points apart; nothing was written"
        )
    model.about.update(test_error=error, test_images=sum(len(labels) for _, labels in tests))
    if onnx:
        with replacing(output) as file:
            file.write(as_onnx(model))
        return [output]
    return model.write(output)


def _error_in_onnx(path: Path, network: PackedNetwork, tests: Batches) -> float:
    """The error in onnxruntime, whose scores are compared with torch's for every image."""
    wrong = count = 0
    for images, labels in tests:
        scores, ours = onnx_scores(path, images), network(images)
        scale = float(ours.abs().max())
        if not torch.allclose(scores, ours, rtol=1e-3, atol=1e-4 * scale):
            raise UserError("onnxruntime computes other scores than torch; nothing was written")
        wrong += int((scores.argmax(1) != labels).sum())
        count += len(labels)
    return 100.0 * wrong / count
