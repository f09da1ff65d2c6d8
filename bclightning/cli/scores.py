"""Scores of many images as a table for other programs."""

import csv
import io
from collections.abc import Sequence

from torch import Tensor


def scores_as_csv(names: Sequence[object], scores: Tensor, classes: Sequence[str]) -> str:
    """A line for each image: its name, its class, and the score of each class.

    Args:
        names: What the images are called.
        scores: Of shape (images, classes).
        classes: What the classes are called.

    Example:
        >>> import torch
        >>> print(scores_as_csv(["a.png"], torch.tensor([[0.5, -1.0]]), ["cat", "dog"]), end="")
        image,class,score cat,score dog
        a.png,cat,0.5,-1
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "class", *(f"score {name}" for name in classes)])
    for name, row in zip(names, scores.tolist(), strict=True):
        best = max(range(len(row)), key=row.__getitem__)
        writer.writerow([name, classes[best], *(f"{score:.6g}" for score in row)])
    return text.getvalue()
