"""What a trained network takes for what: its confusions, and its worst mistakes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from bclightning.data import ImageDataModule
from bclightning.runs.predict import predict
from bclightning.runs.rebuild import TrainedNetwork
from bclightning.training import Classifier

MAX_IMAGES = 16


@dataclass(frozen=True)
class Mistake:
    """A test image that is taken for another class.

    Attributes:
        number: Its number in the file, counted from 0.
        image: Its pixels, of shape (height, width, channels).
        label: Name of its class.
        predicted: Name of the class that it is taken for.
        margin: By how much that class's score exceeds its own class's.
    """

    number: int
    image: npt.NDArray[np.uint8]
    label: str
    predicted: str
    margin: float


@dataclass(frozen=True)
class Mistakes:
    """How a network classifies the test images.

    Attributes:
        class_names: Names of the classes.
        labels: The class of each image.
        predicted: The class that each image is taken for.
        worst: The mistakes with the largest margins, the largest first.
    """

    class_names: list[str]
    labels: list[int]
    predicted: list[int]
    worst: list[Mistake]


def find_mistakes(network: TrainedNetwork) -> Mistakes | None:
    """Classify the test images under the evaluation that stands for a network.

    Args:
        network: The trained network; its batch-norm statistics are replaced where that evaluation
            re-estimates them.

    Returns:
        ``None`` where it is not known what the images and the classes are.
    """
    data = network.data
    if not (isinstance(network.model, Classifier) and isinstance(data, ImageDataModule)):
        return None
    prediction = predict(network)
    scores, names = prediction.scores, [str(name) for name in prediction.class_names]
    labels = data.loaded_splits()["test"].labels.cpu()
    predicted = scores.argmax(1)
    own = scores.gather(1, labels[:, None])[:, 0]
    margins = torch.where(predicted == labels, -torch.inf, scores.amax(1) - own)
    count = min(MAX_IMAGES, int((predicted != labels).sum()))
    # Of equal margins the first in the file, on every machine.
    order = margins.argsort(descending=True, stable=True)[:count]
    pixels = _as_images(data.test_pixels()[order])
    worst = [
        Mistake(
            int(number),
            image,
            names[labels[number]],
            names[predicted[number]],
            float(margins[number]),
        )
        for number, image in zip(order, pixels, strict=True)
    ]
    return Mistakes(names, labels.tolist(), predicted.tolist(), worst)


def _as_images(pixels: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Images of shape (height, width, channels), as bright as the brightest of them all."""
    brightest = float(pixels.max()) if len(pixels) else 255.0
    scaled = pixels if brightest > 16 else pixels * (255.0 / max(brightest, 1e-12))
    array: npt.NDArray[np.uint8] = (
        scaled.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    )
    return array
