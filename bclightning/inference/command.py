"""`bcl predict MODEL --images ...`: classify pictures with a packed model, and nothing else."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from bclightning.arguments import Arguments
from bclightning.errors import UserError
from bclightning.inference.pictures import read_pictures
from bclightning.inference.runtime import load
from bclightning.storage import write_text

# Of what is printed; a file holds all scores.
SHOWN_CLASSES = 3

BATCH = 256

# So many pictures are classified faster on the bits than the bits are unpacked.
FEW = 8


def classify(arguments: Sequence[str]) -> None:
    """Run `bcl predict MODEL --images ...`: print class names and scores of pictures.

    Raises:
        UserError: The model or a picture is missing, damaged, or does not fit.
    """
    parser = Arguments(
        "bcl predict",
        "Classify pictures with a packed model (bcl export writes one). With --run RUN instead of "
        "a model: classify the test images of a run.",
    )
    parser.add_argument("model", metavar="MODEL", help="a packed model")
    parser.add_argument(
        "--images",
        nargs="+",
        required=True,
        metavar="FILE",
        help="PNG files, or .npy arrays of raw pixels: (height, width), (channels, height, width) "
        "or (count, channels, height, width)",
    )
    parser.add_argument("--output", metavar="FILE", help="a CSV file for all scores")
    given = parser.parse_args(list(arguments))
    network = load(given.model, "bits" if len(given.images) <= FEW else "float32")
    names, parts = [], []
    for name in given.images:
        pixels = read_pictures(Path(name), network.image_shape[0])
        names += [name] if len(pixels) == 1 else [f"{name}[{i}]" for i in range(len(pixels))]
        try:
            prepared = network.prepare(pixels)
        except UserError as error:
            raise UserError(f"{name}: {error}") from None
        parts += [network(batch) for batch in torch.split(prepared, BATCH)]
    scores = torch.cat(parts)
    if given.output is not None:
        write_text(given.output, _as_csv(names, scores, network.class_names))
    _print(names, scores, network.class_names)


def _print(names: Sequence[str], scores: torch.Tensor, classes: Sequence[str]) -> None:
    table = Table()
    table.add_column("picture", overflow="fold")
    table.add_column("class")
    table.add_column("score", justify="right")
    table.add_column("next", overflow="fold")
    for name, row in zip(names, scores, strict=True):
        order = row.argsort(descending=True)[:SHOWN_CLASSES].tolist()
        first, *others = [(classes[index], f"{row[index]:.2f}") for index in order]
        table.add_row(name, *first, ", ".join(" ".join(other) for other in others))
    Console().print(table)


def _as_csv(names: Sequence[str], scores: torch.Tensor, classes: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "class", *(f"score {name}" for name in classes)])
    for name, row in zip(names, scores.tolist(), strict=True):
        best = max(range(len(row)), key=row.__getitem__)
        writer.writerow([name, classes[best], *(f"{score:.6g}" for score in row)])
    return text.getvalue()
