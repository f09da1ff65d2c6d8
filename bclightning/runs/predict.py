"""A run's test images as its trained network classifies them."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from bclightning.data import ImageFolder
from bclightning.errors import UserError
from bclightning.evaluation import default_evaluation, scores_of
from bclightning.nn import reestimate_batch_norm_
from bclightning.runs.data import require_loader
from bclightning.runs.rebuild import TrainedNetwork
from bclightning.training import Classifier
from bclightning.training.batch_norm import statistics_batches
from bclightning.vocabulary import RE_ESTIMATED


@dataclass(frozen=True)
class Prediction:
    """Scores of images.

    Attributes:
        names: Names of the images' files of an `ImageFolder`, else their numbers.
        scores: Scores of shape (images, classes), on the CPU.
        class_names: Names of the classes.
        weights: Evaluation weights that were used.
        batch_norm: Batch-norm statistics that were used.
    """

    names: Sequence[object]
    scores: Tensor
    class_names: Sequence[str]
    weights: str
    batch_norm: str


def predict(network: TrainedNetwork) -> Prediction:
    """Classify the images of a data module's ``predict_dataloader``, in one process.

    Args:
        network: The trained network; its batch-norm statistics are replaced where the evaluation
            that stands for it re-estimates them.

    Raises:
        UserError: The module is no `Classifier`, or the data module has no such loader.
    """
    model, data = network.model, network.data
    if not isinstance(model, Classifier):
        raise UserError(
            f"{type(model).__name__} does not say what its classes are; bcl predict needs "
            "bclightning.training.Classifier, and any other module a Trainer's predict"
        )
    require_loader(data, "predict_dataloader")
    weights, statistics = default_evaluation(model)
    # Of several processes each would classify, and write, a part of its own.
    device = network.trainer.strategy.root_device
    model.to(device)
    data.setup("predict")
    with network.trainer.precision_plugin.forward_context():
        if statistics == RE_ESTIMATED:
            data.setup("fit")
            batches = statistics_batches(data)
            reestimate_batch_norm_(model, (images.to(device) for images, _ in batches))
        scores = scores_of(model, data.predict_dataloader())
    classes = getattr(data, "class_names", None) or [str(i) for i in range(scores.shape[1])]
    names: Sequence[object] = range(len(scores))
    if isinstance(data, ImageFolder):
        names = data.test_names()
    return Prediction(names, scores, classes, weights, statistics)
