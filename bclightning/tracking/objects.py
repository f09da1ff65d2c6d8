"""What W&B shows of a test: a confusion matrix, and a table of images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# leet draws charts of a table's size: they are the last.
CONFUSION = "wrong/confusion_matrix"
MISTAKES = "wrong/most_confident"


def confusion_matrix(
    labels: Sequence[int], predicted: Sequence[int], class_names: Sequence[str]
) -> Any:
    """A chart of what is taken for what.

    Args:
        labels: The class of each image.
        predicted: The class that each image is taken for.
        class_names: Names of the classes.
    """
    import wandb

    return wandb.plot.confusion_matrix(
        y_true=list(labels), preds=list(predicted), class_names=list(class_names), title="test set"
    )


def table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A table with a column for each key; arrays (height, width, channels) are images.

    Args:
        rows: The rows, all of the same keys.
    """
    import wandb

    def cell(value: Any) -> Any:
        return wandb.Image(value) if isinstance(value, np.ndarray) else value

    columns: list[str | int] = list(rows[0]) if rows else []
    return wandb.Table(
        columns=columns, data=[[cell(value) for value in row.values()] for row in rows]
    )
