"""A trained network as a packed file, which is tested before it takes its place."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from bclightning import __version__
from bclightning.data import ImageDataModule
from bclightning.errors import MachineError, UserError
from bclightning.evaluation import default_evaluation, error_rate
from bclightning.inference import PackedModel, PackedNetwork
from bclightning.inference.onnx import add_metadata, input_description, onnx_scores, write_onnx
from bclightning.nn import evaluating_with, reestimate_batch_norm_
from bclightning.runs.notices import logger
from bclightning.runs.rebuild import TrainedNetwork
from bclightning.runs.record import RunRecord
from bclightning.runs.scratch import scratch_folder
from bclightning.seeds import SEEDING
from bclightning.storage import checked_target, flush_folder
from bclightning.training import Classifier
from bclightning.training.batch_norm import statistics_batches
from bclightning.vocabulary import AS_TRAINED, RE_ESTIMATED, BatchNormStatistics

Format = Literal["packed", "onnx"]

# In percentage points. Sums in another order, and products that were rounded to bfloat16 when the
# run was tested, move a few images of ten thousand over the edge.
TOLERANCE = 0.1

# Images that are classified together.
BATCH_SIZE = 1000

_ENDINGS: dict[Format, str] = {"packed": "safetensors", "onnx": "onnx"}


@dataclass(frozen=True)
class Exported:
    """A model that was written.

    Attributes:
        files: The files, the model's own first.
        error: Test error of the written model, in percent.
        error_of_run: Test error of the run's network with the same weights, in percent.
        batch_norm: Batch-norm statistics that were folded into the model.
        float_bytes: Size of the network with every parameter in 32 bits.
        input: What goes into an ONNX graph, in words; ``None`` for a packed model.
    """

    files: list[Path]
    error: float
    error_of_run: float
    batch_norm: BatchNormStatistics
    float_bytes: int
    input: str | None = None


def export(
    network: TrainedNetwork,
    output: str | Path | None = None,
    *,
    format: Format = "packed",
    batch_norm: BatchNormStatistics | None = None,
    tolerance: float | None = None,
) -> Exported:
    """Write a trained network with one bit a binary weight.

    The written file is read again and tested on the test set's raw pixels before it takes its
    place: a packed model by `bclightning.inference`, a graph by onnxruntime alone, since it holds
    its preprocessing.

    Args:
        network: The trained network.
        output: File to write; ``RUN.safetensors`` or ``RUN.onnx`` in this folder if ``None``.
        format: ``packed``, for `bclightning.inference.load`, or ``onnx``.
        batch_norm: Batch-norm statistics; those that stand for the network if ``None``.
        tolerance: Difference of the written model's test error from the run's that is allowed, in
            percentage points; 0.1, or one image, if ``None``.

    Raises:
        UserError: The network has no binary weights or is not a chain of layers, the images are
            not known, or the written model's test error is not the run's; then no file is left.
        MachineError: The disk is full, or the file cannot be written.
    """
    model, data = network.model, network.data
    if not isinstance(model, Classifier):
        raise UserError(
            f"{type(model).__name__} cannot be exported: only a network inside "
            "bclightning.training.Classifier can"
        )
    if not isinstance(data, ImageDataModule):
        raise UserError(
            f"{type(data).__name__} cannot be exported with: it must be an ImageDataModule of "
            "bclightning.data, which says what the images are"
        )
    title = Path(network.name).stem if network.folder is None else network.folder.run_id
    target = checked_target(output or f"{title}.{_ENDINGS[format]}")
    if not os.access(target.parent, os.W_OK):
        # Before the work is done, and not after it.
        raise MachineError(f"{target} cannot be written: {target.parent} is read-only")
    statistics = batch_norm or default_evaluation(model)[1]
    logger.info("packing and testing %s ...", target)
    data.setup("test")
    packed, error_of_run = _pack(model, data, statistics, network.record)
    packed.about.setdefault("run", title)
    tests = _Tests(data)
    if tolerance is None:
        tolerance = max(TOLERANCE, 100.0 / len(tests.labels) + 1e-9)
    with scratch_folder(target) as place:
        write = _write_onnx if format == "onnx" else _write_packed
        trials = write(packed, place / target.name, tests)
        error = packed.about["test_error"]
        if abs(error - error_of_run) > tolerance:
            raise UserError(
                f"the packed model's test error is {error:.2f} % and the run's {error_of_run:.2f} "
                f"%, which is more than {tolerance:.2f} percentage points apart; nothing was "
                "written"
            )
        files = [target.with_name(trial.name) for trial in trials]
        for trial, file in zip(reversed(trials), reversed(files), strict=True):
            # The model last: what it needs is there before it.
            os.replace(trial, file)
        flush_folder(target.parent)
    taken = input_description(packed, tests.for_graph().dtype) if format == "onnx" else None
    return Exported(files, error, error_of_run, statistics, packed.float_bytes, taken)


def _pack(
    model: Classifier,
    data: ImageDataModule,
    statistics: BatchNormStatistics,
    record: RunRecord | None,
) -> tuple[PackedModel, float]:
    """The packed model, and the test error that the run's network has with such weights."""
    about: dict[str, Any] = {"bclightning": __version__}
    if record is not None:
        about |= {
            "run": record.run_id,
            "regularizer": record.regularizer,
            "data": record.data,
            "seed": record.seed,
            "commit": (record.git or {}).get("commit"),
            "monitor": record.monitor,
            "best_score": record.best_score,
        }
    with evaluating_with(model, "binary"):
        if statistics == RE_ESTIMATED:
            images = (images for images, _ in statistics_batches(data))
            reestimate_batch_norm_(model, images)
        error = None
        # Older runs re-estimated the statistics of their test from other images.
        if record is not None and (statistics == AS_TRAINED or record.seeding == SEEDING):
            error = record.tested_with("binary", statistics)
        if error is None:
            error = error_rate(model, data.test_dataloader())
    about |= {"weights": "binary", "batch_norm": statistics, "error_of_run": error}
    packed = PackedModel.of(
        model.network, data.image_shape, data.class_names, data.preprocessing(), about
    )
    return packed, error


class _Tests:
    """The test images as their files have them, and their labels."""

    def __init__(self, data: ImageDataModule) -> None:
        self.pixels = data.test_pixels()
        self.labels = data.loaded_splits()["test"].labels

    def prepared_by(self, network: PackedNetwork) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of images that went through the network's own preprocessing, and labels."""
        for pixels, labels in zip(
            torch.split(self.pixels, BATCH_SIZE), torch.split(self.labels, BATCH_SIZE), strict=True
        ):
            yield network.prepare(pixels), labels

    def for_graph(self) -> Tensor:
        """The raw pixels in the smallest dtype that holds them: uint8, else float32."""
        low, high = self.pixels.aminmax()
        whole = low >= 0 and high <= 255 and torch.equal(self.pixels, self.pixels.round())
        return self.pixels.to(torch.uint8 if whole else torch.float32)


def _write_packed(model: PackedModel, path: Path, tests: _Tests) -> list[Path]:
    """Write the model, test what can be read of the file, and write that into it."""
    model.write(path)
    network = PackedNetwork(PackedModel.read(path), "float32")
    error = error_rate(network, tests.prepared_by(network))
    model.about.update(test_error=error, test_images=len(tests.labels))
    files = model.write(path)
    again = PackedModel.read(path)
    if not model.same_as(again):
        raise UserError(f"{path.name} does not contain what was written to it; check the disk")
    return files


def _write_onnx(model: PackedModel, path: Path, tests: _Tests) -> list[Path]:
    """Write the graph, after testing it on raw pixels and comparing its scores with torch's."""
    pixels = tests.for_graph()
    files = write_onnx(model, path, pixels.dtype)
    scores = onnx_scores(path, pixels, BATCH_SIZE)
    network = PackedNetwork(model, "float32")
    ours = torch.cat([network(images) for images, _ in tests.prepared_by(network)])
    scale = float(ours.abs().max())
    if not torch.allclose(scores, ours, rtol=1e-3, atol=1e-4 * scale):
        raise UserError("onnxruntime computes other scores than torch; nothing was written")
    wrong, count = int((scores.argmax(1) != tests.labels).sum()), len(tests.labels)
    measured = {"test_error": 100.0 * wrong / count, "test_images": count}
    model.about.update(measured)
    add_metadata(path, measured)
    return files
