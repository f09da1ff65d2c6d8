"""`bcl export`: a trained network as a packed file that runs without the code of training."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from bclightning import __version__
from bclightning.data import ImageDataModule
from bclightning.errors import UserError
from bclightning.evaluation import default_evaluation, error_rate
from bclightning.formatting import megabytes
from bclightning.inference import PackedModel, PackedNetwork
from bclightning.inference.onnx import as_onnx, onnx_scores
from bclightning.nn import evaluating_with, reestimate_batch_norm_
from bclightning.runs.config import take_option
from bclightning.runs.rebuild import rebuilt, statistics_batches
from bclightning.runs.record import RunRecord
from bclightning.storage import checked_target, flush_folder, replacing
from bclightning.training import Classifier
from bclightning.vocabulary import BatchNormStatistics

# In percentage points. Sums in another order, and products that were rounded to bfloat16 when the
# run was tested, move a few images of ten thousand over the edge.
TOLERANCE = 0.1

# Images that are classified together.
BATCH = 1000

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
    batch_norm: BatchNormStatistics | None
    tolerance: float | None

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> tuple["_Wanted", list[str]]:
        rest, values = list(arguments), {}
        for option in OPTIONS:
            values[option], rest = take_option(rest, option)
        formats = {None: False, "packed": False, "onnx": True}
        statistics: dict[str | None, BatchNormStatistics | None] = {
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

    The written file is read again and tested on the test set's raw pixels, before it takes its
    place.

    Raises:
        UserError: The run has no binary weights, or its network is not a chain of layers, or the
            written model's test error is not the run's; then no file is left.
    """
    wanted, rest = _Wanted.parse(arguments)
    if rest and not rest[0].startswith("-"):
        if take_option(rest, "--run")[0] is not None:
            raise UserError(f"name one run: {rest[0]}, or that of --run")
        rest = ["--run", *rest]
    given = rebuilt(rest, "export", OPTIONS)
    network, datamodule = given.model, given.datamodule
    if not isinstance(datamodule, ImageDataModule):
        raise UserError("bcl export needs one of the package's image data sets, to say what images")
    record = None
    if given.folder is not None and given.as_recorded:
        record = RunRecord.read(given.folder.record)
    title = Path(given.name).stem if given.folder is None else given.folder.run_id
    ending = "onnx" if wanted.onnx else "safetensors"
    output = checked_target(wanted.output or f"{title}.{ending}")
    statistics = wanted.batch_norm or default_evaluation(network)[1]
    console = Console()
    console.print(f"packing and testing {output} ...", highlight=False, soft_wrap=True)
    datamodule.setup("test")
    model, error_of_run = _packed(network, datamodule, statistics, record)
    model.about.setdefault("run", title)
    tests = _Tests(datamodule)
    tolerance = wanted.tolerance
    if tolerance is None:
        tolerance = max(TOLERANCE, 100.0 / len(tests.labels) + 1e-9)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as place:
        write = _write_onnx if wanted.onnx else _write_packed
        trials = write(model, Path(place) / output.name, tests)
        error = model.about["test_error"]
        if abs(error - error_of_run) > tolerance:
            raise UserError(
                f"the packed model's test error is {error:.2f} % and the run's {error_of_run:.2f} "
                f"%, which is more than {tolerance:.2f} percentage points apart; nothing was "
                "written"
            )
        files = [output.with_name(trial.name) for trial in trials]
        for trial, file in zip(reversed(trials), reversed(files), strict=True):
            # The model last: what it needs is there before it.
            os.replace(trial, file)
        flush_folder(output.parent)
    rows = [
        ("test error", f"{error_of_run:.2f} % in the run, {error:.2f} % as written"),
        ("method", f"binary weights, batch-norm statistics {statistics}"),
        ("size", f"{megabytes(output.stat().st_size)}; {megabytes(model.float_bytes)} in fp32"),
        ("files", ", ".join(map(str, files))),
    ]
    if not wanted.onnx:
        rows.append(("use", f"bcl predict {output} --images IMAGE ..."))
    for label, text in rows:
        console.print(f"{label:<10}  {text}", highlight=False, soft_wrap=True, markup=False)
    return output


def _packed(
    network: Classifier,
    datamodule: ImageDataModule,
    statistics: BatchNormStatistics,
    record: RunRecord | None,
) -> tuple[PackedModel, float]:
    """The packed model, and the test error that the run's network has with such weights."""
    about: dict[str, Any] = {"bclightning": __version__}
    if record is not None:
        about |= {
            "run": record.run_id,
            "method": record.regularizer,
            "data": record.data,
            "seed": record.seed,
            "commit": (record.git or {}).get("commit"),
            "validation_error": record.best_score,
        }
    with evaluating_with(network, "binary"):
        if statistics == "re-estimated":
            images = (images for images, _ in statistics_batches(datamodule))
            reestimate_batch_norm_(network, images)
        error = None if record is None else record.tested_with("binary", statistics)
        if error is None:
            error = error_rate(network, datamodule.test_dataloader())
    about |= {"weights": "binary", "batch_norm": statistics, "error_of_run": error}
    model = PackedModel.of(
        network.network,
        datamodule.image_shape,
        datamodule.class_names,
        datamodule.preprocessing(),
        about,
    )
    return model, error


class _Tests:
    """The test images as their files have them, and their labels."""

    def __init__(self, datamodule: ImageDataModule) -> None:
        self.pixels = datamodule.test_pixels()
        self.labels = datamodule.loaded_splits()["test"].labels

    def prepared_by(self, network: PackedNetwork) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of images that went through the network's own preprocessing, and labels."""
        for pixels, labels in zip(
            torch.split(self.pixels, BATCH), torch.split(self.labels, BATCH), strict=True
        ):
            yield network.prepare(pixels), labels


def _write_packed(model: PackedModel, path: Path, tests: _Tests) -> list[Path]:
    """Write the model, test what can be read of the file, and write that into it."""
    model.write(path)
    network = PackedNetwork(PackedModel.read(path), "float32")
    error = error_rate(network, tests.prepared_by(network))
    model.about.update(test_error=error, test_images=len(tests.labels))
    files = model.write(path)
    again = PackedModel.read(path)
    if not model.same_as(again):
        raise UserError(f"{path.name} does not hold what was written to it; is the disk sound?")
    return files


def _write_onnx(model: PackedModel, path: Path, tests: _Tests) -> list[Path]:
    """Write the graph, after comparing its scores with torch's for every test image."""
    network = PackedNetwork(model, "float32")
    path.write_bytes(as_onnx(model))
    wrong = 0
    for images, labels in tests.prepared_by(network):
        scores, ours = onnx_scores(path, images), network(images)
        scale = float(ours.abs().max())
        if not torch.allclose(scores, ours, rtol=1e-3, atol=1e-4 * scale):
            raise UserError("onnxruntime computes other scores than torch; nothing was written")
        wrong += int((scores.argmax(1) != labels).sum())
    count = len(tests.labels)
    model.about.update(test_error=100.0 * wrong / count, test_images=count)
    with replacing(path) as file:
        file.write(as_onnx(model))
    return [path]
