"""A trained network as a packed file, which is tested before it takes its place."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from bclightning import __version__
from bclightning.data import ImageDataModule
from bclightning.errors import MachineError, UserError
from bclightning.evaluation import default_evaluation, error_rate
from bclightning.inference import PackedModel, PackedNetwork
from bclightning.inference.onnx import add_metadata, input_description, onnx_scores, write_onnx
from bclightning.nn import evaluating_with, reestimate_batch_norm_
from bclightning.preprocessing import Preprocessing
from bclightning.runs.data import require_loader
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
        takes_raw_images: Whether the model holds its preprocessing, so that it takes raw pixels.
    """

    files: list[Path]
    error: float
    error_of_run: float
    batch_norm: BatchNormStatistics
    float_bytes: int
    input: str | None = None
    takes_raw_images: bool = True


def export(
    network: TrainedNetwork,
    output: str | Path | None = None,
    *,
    format: Format = "packed",
    batch_norm: BatchNormStatistics | None = None,
    tolerance: float | None = None,
    image_shape: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
) -> Exported:
    """Write a trained network with one bit a binary weight.

    The written file is read again and tested on the test set's raw pixels before it takes its
    place: a packed model by `bclightning.inference`, a graph by onnxruntime alone, since it holds
    its preprocessing. A LightningDataModule of a user's own does not say how it prepares images, so
    the file has no preprocessing then, and is tested on the batches of ``test_dataloader``.

    Args:
        network: The trained network.
        output: File to write; ``RUN.safetensors`` or ``RUN.onnx`` in this folder if ``None``.
        format: ``packed``, for `bclightning.inference.load`, or ``onnx``.
        batch_norm: Batch-norm statistics; those that stand for the network if ``None``.
        tolerance: Difference of the written model's test error from the run's that is allowed, in
            percentage points; 0.1, or one image, if ``None``.
        image_shape: Channels, height and width of an image, for a data module of a user's own; its
            own ``image_shape``, or the shape of its first test image, if ``None``.
        class_names: Names of the classes, for such a data module; its own ``class_names`` if
            ``None``.

    Raises:
        UserError: The network has no binary weights or computes what no step of a packed model
            can, the names of the classes are not known, or the written model's test error is not
            the run's; then no file is left.
        MachineError: The disk is full, or the file cannot be written.
    """
    model, data = network.model, network.data
    if not isinstance(model, Classifier):
        raise UserError(
            f"{type(model).__name__} cannot be exported: only a network inside "
            "bclightning.training.Classifier can"
        )
    require_loader(data, "test_dataloader")
    title = Path(network.name).stem if network.folder is None else network.folder.run_id
    target = checked_target(output or f"{title}.{_ENDINGS[format]}")
    if not os.access(target.parent, os.W_OK):
        # Before the work is done, and not after it.
        raise MachineError(f"{target} cannot be written: {target.parent} is read-only")
    statistics = batch_norm or default_evaluation(model)[1]
    logger.info("packing and testing %s ...", target)
    data.setup("test")
    tests = _TestPixels(data) if isinstance(data, ImageDataModule) else _TestBatches(data)
    described = _described(data, tests, model, image_shape, class_names)
    packed, error_of_run = _pack(model, data, statistics, network.record, described)
    packed.about.setdefault("run", title)
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
    on_raw = packed.preprocessing is not None
    taken = input_description(packed, tests.for_graph().dtype) if format == "onnx" else None
    return Exported(files, error, error_of_run, statistics, packed.float_bytes, taken, on_raw)


def _pack(
    model: Classifier,
    data: LightningDataModule,
    statistics: BatchNormStatistics,
    record: RunRecord | None,
    described: "_Described",
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
            data.setup("fit")
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
        model.network,
        described.image_shape,
        described.class_names,
        described.preprocessing,
        about,
    )
    return packed, error


@dataclass(frozen=True)
class _Described:
    """What a packed model says of the data."""

    image_shape: Sequence[int]
    class_names: Sequence[str]
    preprocessing: Preprocessing | None


def _described(
    data: LightningDataModule,
    tests: "_Tests",
    model: Classifier,
    image_shape: Sequence[int] | None,
    class_names: Sequence[str] | None,
) -> _Described:
    if isinstance(data, ImageDataModule):
        for option, value in (("image_shape", image_shape), ("class_names", class_names)):
            if value is not None:
                raise UserError(
                    f"--{option} is for a data module that does not say it, and "
                    f"{type(data).__name__} does; leave it out"
                )
        return _Described(data.image_shape, data.class_names, data.preprocessing())
    first, _ = next(iter(tests.batches()))
    shape = tuple(image_shape or getattr(data, "image_shape", None) or first.shape[1:])
    if shape != tuple(first.shape[1:]):
        raise UserError(
            f"--image_shape is {list(shape)}, and the test images of {type(data).__name__} have "
            f"the shape {list(first.shape[1:])}"
        )
    names = class_names or getattr(data, "class_names", None)
    if not names:
        with torch.no_grad():
            outputs = model.eval()(first[:1]).shape[1]
        raise UserError(
            f"{type(data).__name__} does not say what its {outputs} classes are called; give "
            "--class_names [NAME, ...], or the data module an attribute class_names"
        )
    return _Described(shape, tuple(names), None)


class _Tests(Protocol):
    """The test images, and their labels."""

    labels: Tensor

    def batches(self) -> Iterable[tuple[Tensor, Tensor]]:
        """Batches of images and labels."""

    def prepared_by(self, network: PackedNetwork) -> Iterable[tuple[Tensor, Tensor]]:
        """Batches of images that are prepared for the network, and labels."""

    def for_graph(self) -> Tensor:
        """All that an ONNX graph takes."""


class _TestBatches:
    """Test images as a data module of a user's own prepares them."""

    def __init__(self, data: LightningDataModule) -> None:
        self._loader = data.test_dataloader()
        self.labels = torch.cat([labels for _, labels in self._loader])

    def batches(self) -> Iterable[tuple[Tensor, Tensor]]:
        """Batches of the loader."""
        return self._loader

    def prepared_by(self, network: PackedNetwork) -> Iterable[tuple[Tensor, Tensor]]:
        """Batches of the loader, which are prepared already."""
        return self.batches()

    def for_graph(self) -> Tensor:
        """All prepared images, float32."""
        return torch.cat([images.float() for images, _ in self.batches()])


class _TestPixels:
    """The test images as their files have them, and their labels."""

    def __init__(self, data: ImageDataModule) -> None:
        self.pixels = data.test_pixels()
        self.labels = data.loaded_splits()["test"].labels

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of raw pixels and labels."""
        yield from zip(
            torch.split(self.pixels, BATCH_SIZE), torch.split(self.labels, BATCH_SIZE), strict=True
        )

    def prepared_by(self, network: PackedNetwork) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of images that went through the network's own preprocessing, and labels."""
        for pixels, labels in self.batches():
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
    """Write the graph, after testing it on what it takes and comparing its scores with torch's."""
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
