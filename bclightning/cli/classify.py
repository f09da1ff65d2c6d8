"""`bcl predict MODEL --images ...`: classify pictures with a packed model, and nothing else."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bclightning.cli.parser import Arguments
from bclightning.cli.scores import scores_as_csv
from bclightning.errors import UserError
from bclightning.inference.images import read_pictures
from bclightning.inference.packed import PackedModel
from bclightning.inference.runtime import PackedNetwork
from bclightning.storage import checked_target, write_text

# Of what is printed; a file holds all.
SHOWN_CLASSES = 3
SHOWN_PICTURES = 50

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
        action="extend",
        required=True,
        metavar="FILE",
        help="PNG, JPEG or BMP files, or .npy arrays of raw pixels: (height, width), (channels, "
        "height, width) or (count, channels, height, width)",
    )
    parser.add_argument("--output", metavar="FILE", help="a CSV file for all scores")
    given = parser.parse_args(list(arguments))
    output = None if given.output is None else checked_target(given.output)
    model = PackedModel.read(given.model)
    if model.preprocessing is None:
        raise UserError(
            f"{given.model} says nothing of how pixels are prepared, or the file that does, "
            "NAME.preprocessing.safetensors, is not beside it"
        )
    names, pictures = [], []
    for name in given.images:
        pixels = read_pictures(Path(name), model.image_shape, model.preprocessing.white)
        names += [name] if len(pixels) == 1 else [f"{name}[{i}]" for i in range(len(pixels))]
        pictures.append(pixels)
    network = PackedNetwork(model, "bits" if len(names) <= FEW else "float32")
    scores = torch.cat(
        [
            network(network.prepare(batch))
            for pixels in pictures
            for batch in torch.split(pixels, BATCH)
        ]
    )
    if output is not None:
        write_text(output, scores_as_csv(names, scores, network.class_names))
    _print(names, scores, network.class_names)


def _print(names: Sequence[str], scores: torch.Tensor, classes: Sequence[str]) -> None:
    table = Table()
    table.add_column("picture", overflow="fold")
    table.add_column("class")
    table.add_column("score", justify="right")
    table.add_column("next", overflow="fold")
    for name, row in zip(names[:SHOWN_PICTURES], scores, strict=False):
        order = row.argsort(descending=True)[:SHOWN_CLASSES].tolist()
        first, *others = [(classes[index], f"{row[index]:.2f}") for index in order]
        beside = ", ".join(" ".join(other) for other in others)
        # As they are: brackets in a name are no markup.
        table.add_row(*map(Text, (name, *first, beside)))
    Console().print(table)
    if len(names) > SHOWN_PICTURES:
        print(f"... and {len(names) - SHOWN_PICTURES} more pictures; --output FILE takes them all")
