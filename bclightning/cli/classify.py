"""What `bcl predict` does: it reads images and classifies them, and shows or writes the scores."""

import argparse
import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from bclightning.errors import UserError
from bclightning.formatting import printable
from bclightning.inference.graph import shapes
from bclightning.inference.images import read_images
from bclightning.inference.packed import PackedModel
from bclightning.inference.runtime import PackedNetwork
from bclightning.storage import checked_target, write_text

# Numbers of what is printed; a file holds all.
MAX_CLASSES_SHOWN = 3
MAX_IMAGES_SHOWN = 50

BATCH_SIZE = 256

# Of a layer's results for a batch, 1 GB in float32: fewer images of a network for large ones.
MAX_VALUES_AT_ONCE = 2**28

# So many images are classified faster on the bits than the bits are unpacked.
MAX_IMAGES_ON_BITS = 8


def with_model(options: argparse.Namespace) -> None:
    """Classify the images of `options` with a packed model."""
    output = None if options.output is None else checked_target(options.output)
    model = PackedModel.read(options.source)
    if model.preprocessing is None:
        raise UserError(
            f"{options.source} does not say how pixels are prepared, or the file that does, "
            "NAME.preprocessing.safetensors, is not beside it"
        )
    names, images = [], []
    for name in options.images:
        prepared = model.preprocessing
        pixels = read_images(Path(name), model.image_shape, prepared.max_pixel, prepared.fit)
        names += [name] if len(pixels) == 1 else [f"{name}[{i}]" for i in range(len(pixels))]
        images.append(pixels)
    network = PackedNetwork(model, "bits" if len(names) <= MAX_IMAGES_ON_BITS else "float32")
    scores = torch.cat(
        [
            network(network.prepare(batch))
            for pixels in images
            for batch in torch.split(pixels, _batch_size(model))
        ]
    )
    for name, row in zip(names, scores, strict=True):
        if not row.isfinite().all():
            raise UserError(
                f"{options.source} gives NaN or infinity for {printable(name)}; export its run "
                "again, or choose another model"
            )
    if output is not None:
        write_text(output, scores_as_csv(names, scores, network.class_names))
    _print_scores(names, scores, network.class_names)


def _batch_size(model: PackedModel) -> int:
    largest = max(math.prod(shape) for shape in shapes(model.steps, model.image_shape))
    return max(1, min(BATCH_SIZE, MAX_VALUES_AT_ONCE // largest))


def with_run(options: argparse.Namespace) -> None:
    """Classify a run's test images with its network, into a CSV file."""
    from bclightning.cli.evaluate import trained_network
    from bclightning.runs.config import RunConfig
    from bclightning.runs.predict import predict

    given = {"data.root": options.root, "trainer.accelerator": options.accelerator}
    places = {key: value for key, value in given.items() if value is not None}
    source = options.run or options.source
    if source is not None:
        config = RunConfig.from_run(source, places, allow_code=options.allow_code)
    elif options.config is not None:
        config = RunConfig.load(options.config, places)
    else:
        raise UserError("name a packed model or a run: bcl predict MODEL|RUN")
    path = checked_target(options.output or "predictions.csv")
    network = trained_network(config, options.ckpt_path, "predict")
    prediction = predict(network)
    names = prediction.names
    write_text(path, scores_as_csv(names, prediction.scores, prediction.class_names))
    print(
        f"{printable(network.name)}: {len(names)} predictions with {prediction.weights} weights "
        f"and batch-norm statistics {prediction.batch_norm}, in {printable(str(path))}"
    )


def scores_as_csv(names: Sequence[object], scores: Tensor, classes: Sequence[str]) -> str:
    """A line for each image: its name, its class, and the score of each class.

    Control characters in names are escaped, since names may come from a stranger's model.

    Args:
        names: Names of the images.
        scores: Scores of shape (images, classes).
        classes: Names of the classes.

    Example:
        >>> print(scores_as_csv(["a.png"], torch.tensor([[0.5, -1.0]]), ["cat", "dog"]), end="")
        image,class,score cat,score dog
        a.png,cat,0.5,-1
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    shown = [printable(name) for name in classes]
    writer.writerow(["image", "class", *(f"score {name}" for name in shown)])
    for name, row in zip(names, scores.tolist(), strict=True):
        best = max(range(len(row)), key=row.__getitem__)
        writer.writerow([printable(str(name)), shown[best], *(f"{score:.6g}" for score in row)])
    return text.getvalue()


def _print_scores(names: Sequence[str], scores: Tensor, classes: Sequence[str]) -> None:
    table = Table()
    table.add_column("image", overflow="fold")
    table.add_column("class")
    table.add_column("score", justify="right")
    table.add_column("next", overflow="fold")
    for name, row in zip(names[:MAX_IMAGES_SHOWN], scores, strict=False):
        order = row.argsort(descending=True)[:MAX_CLASSES_SHOWN].tolist()
        first, *others = [(classes[index], f"{row[index]:.2f}") for index in order]
        beside = ", ".join(" ".join(other) for other in others)
        # As text: brackets in a name are no markup.
        table.add_row(*(Text(printable(cell)) for cell in (name, *first, beside)))
    Console().print(table)
    if len(names) > MAX_IMAGES_SHOWN:
        rest = len(names) - MAX_IMAGES_SHOWN
        print(f"... and {rest} more images; --output FILE writes them all")
