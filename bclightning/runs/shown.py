"""What W&B is shown of a finished test, beside its errors."""

import tempfile
from pathlib import Path
from typing import Any

from bclightning.errors import UserError
from bclightning.runs.export import export
from bclightning.runs.interrupt import interruption_of
from bclightning.runs.mistakes import Mistakes, find_mistakes
from bclightning.runs.notices import logger
from bclightning.runs.rebuild import TrainedNetwork
from bclightning.tracking.logger import TrackingLogger
from bclightning.tracking.objects import CONFUSION, MISTAKES, confusion_matrix, table


def show_test(tracker: TrackingLogger, network: TrainedNetwork, *, log_model: bool) -> None:
    """Show a confusion matrix, the worst mistakes, and the exported model if it is asked for.

    Whatever fails here costs a notice, since the run's results are there.

    Args:
        tracker: The run in W&B.
        network: The network as it was tested.
        log_model: Whether the model is logged as an artifact, where W&B is online.
    """
    try:
        mistakes = find_mistakes(network)
        if mistakes is not None:
            tracker.log_objects(lambda: _objects(mistakes))
        if log_model and tracker.online:
            _log_model(tracker, network)
        elif log_model:
            logger.info("W&B is not online, so it gets no model; bcl export writes one")
    except UserError as error:
        logger.info("W&B gets no model: %s", error)
    except Exception as error:
        if interruption_of(error) is not None:
            raise
        logger.info("W&B gets no more of the test: %s: %s", type(error).__name__, error)


def _objects(mistakes: Mistakes) -> dict[str, Any]:
    objects = {
        CONFUSION: confusion_matrix(mistakes.labels, mistakes.predicted, mistakes.class_names)
    }
    if mistakes.worst:
        objects[MISTAKES] = table(
            [
                {
                    "image": mistake.image,
                    "class": mistake.label,
                    "taken for": mistake.predicted,
                    "score above its class": round(mistake.margin, 4),
                    "number in the test set": mistake.number,
                }
                for mistake in mistakes.worst
            ]
        )
    return objects


def _log_model(tracker: TrackingLogger, network: TrainedNetwork) -> None:
    record = network.record
    run_id = "model" if record is None else record.run_id
    with tempfile.TemporaryDirectory() as place:
        written = export(network, Path(place) / f"{run_id}.safetensors")
        facts = {"test_error_pct": written.error, "batch_norm": written.batch_norm}
        tracker.log_model(run_id, written.files, facts)
