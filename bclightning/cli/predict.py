"""`bcl predict --run`: the test images as a trained network classifies them."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bclightning.cli.scores import scores_as_csv
from bclightning.evaluation import default_evaluation, scores_of
from bclightning.nn import reestimate_batch_norm_
from bclightning.runs.config import take_option
from bclightning.runs.rebuild import rebuilt, require_loader, statistics_batches
from bclightning.storage import checked_target, write_text


def predict(arguments: Sequence[str]) -> Path:
    """Run `bcl predict`: write the class and the scores of each test image to a CSV file."""
    output, rest = take_option(arguments, "--output")
    given = rebuilt(
        rest, "predict", {"--output": "The CSV file to write; predictions.csv when left out."}
    )
    model, datamodule = given.model, given.datamodule
    path = checked_target(output or "predictions.csv")
    require_loader(datamodule, "predict_dataloader")
    weights, statistics = default_evaluation(model)
    # In one process, as for the errors: of several each would classify, and write, its own part.
    device = given.trainer.strategy.root_device
    model.to(device)
    datamodule.setup("predict")
    with given.trainer.precision_plugin.forward_context():
        if statistics == "re-estimated":
            datamodule.setup("fit")
            batches = statistics_batches(datamodule)
            reestimate_batch_norm_(model, (images.to(device) for images, _ in batches))
        scores = scores_of(model, datamodule.predict_dataloader())
    classes = getattr(datamodule, "class_names", None) or [str(i) for i in range(scores.shape[1])]
    write_text(path, scores_as_csv(range(len(scores)), scores, classes))
    Console().print(
        f"{given.name}: {len(scores)} predictions with {weights} weights and batch-norm statistics "
        f"{statistics}, in {path}",
        highlight=False,
        soft_wrap=True,
    )
    return path
