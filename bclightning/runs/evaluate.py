"""A trained network judged on a split: with each kind of evaluation weights and statistics."""

from collections.abc import Callable, Sequence
from typing import Literal

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

from bclightning.errors import UserError
from bclightning.evaluation import EvaluationResult, ensemble_errors, errors_by_weights
from bclightning.nn import binary_layers, evaluating_with
from bclightning.nn.batch_norm import tracking_batch_norms
from bclightning.runs.data import require_loader
from bclightning.runs.late_layers import weights_kept_by
from bclightning.runs.metrics_csv import shortest
from bclightning.training import ReestimateBatchNorm
from bclightning.training.batch_norm import statistics_batches
from bclightning.training.classifier import keeps_steps
from bclightning.vocabulary import AS_TRAINED, RE_ESTIMATED, EvalWeights, LayerWeights

# Errors of an ensemble of the paper's networks change little beyond.
ENSEMBLE_SIZE = 10

Split = Literal["validate", "test"]


def evaluate(
    model: LightningModule,
    datamodule: LightningDataModule,
    trainer: Trainer,
    split: Split,
    metric: str,
    make_trainer: Callable[[Sequence[Callback]], Trainer],
    weights: EvalWeights | None = None,
    ensemble_size: int = ENSEMBLE_SIZE,
) -> list[EvaluationResult]:
    """Judge a network on a split, on the trainer's device and in its precision, in one process.

    A `Classifier` is judged by its classification error in percent, any other module, and a
    subclass with steps of its own, by the metric that its validation or test step logs.

    Args:
        model: The network.
        datamodule: Its data.
        trainer: Trainer that says device and precision.
        split: ``validate`` or ``test``.
        metric: Name of the metric that the step logs; a `Classifier` needs none.
        make_trainer: Makes the trainer that runs the steps of a module that is no `Classifier`,
            with the callbacks that it is given.
        weights: Evaluation weights; binary and real ones if ``None``.
        ensemble_size: Number of networks in an ensemble.

    Returns:
        Two results for each kind of weights: batch norm as trained, and re-estimated.

    Raises:
        UserError: The data module has no such split, the network no such weights, or the step does
            not log the metric.
    """
    require_loader(datamodule, "test_dataloader" if split == "test" else "val_dataloader")
    if weights not in (None, "real") and not binary_layers(model):
        raise UserError(
            f"{type(model).__name__} has no binary weights; evaluate it with --eval_weights real"
        )
    kinds: Sequence[EvalWeights] = [] if weights is None else [weights]
    if not keeps_steps(model, "validation_step", "test_step"):
        if weights == "ensemble":
            raise UserError(
                "an ensemble averages class scores, so it needs bclightning.training.Classifier "
                "with its own steps"
            )
        return _metrics_by_weights(model, datamodule, make_trainer, split, metric, kinds)
    datamodule.setup("fit")
    if split == "test":
        datamodule.setup("test")
        batches = datamodule.test_dataloader()
    else:
        batches = datamodule.val_dataloader()
    model.to(trainer.strategy.root_device)
    statistics = statistics_batches(datamodule)
    precision = trainer.precision_plugin.forward_context
    if weights == "ensemble":
        return ensemble_errors(model, batches, statistics, ensemble_size, precision=precision)
    return errors_by_weights(model, batches, statistics, kinds, precision)


def _metrics_by_weights(
    model: LightningModule,
    datamodule: LightningDataModule,
    make_trainer: Callable[[Sequence[Callback]], Trainer],
    split: Split,
    metric: str,
    kinds: Sequence[EvalWeights],
) -> list[EvaluationResult]:
    results = []
    for weights in kinds or (("binary", "real") if binary_layers(model) else ("real",)):
        with evaluating_with(model, _of_layers(weights)):
            value = _logged(make_trainer([]), model, datamodule, split, metric)
            results.append(EvaluationResult(weights, AS_TRAINED, value))
            if tracking_batch_norms(model):
                statistics = ReestimateBatchNorm(always=True)
                value = _logged(make_trainer([statistics]), model, datamodule, split, metric)
                if statistics.estimated:
                    results.append(EvaluationResult(weights, RE_ESTIMATED, value))
    return results


def _of_layers(weights: EvalWeights) -> LayerWeights:
    if weights == "ensemble":
        raise ValueError("an ensemble is evaluated by ensemble_errors")
    return weights


def _logged(
    trainer: Trainer,
    model: LightningModule,
    datamodule: LightningDataModule,
    split: Split,
    metric: str,
) -> float:
    run = trainer.test if split == "test" else trainer.validate
    values: dict[str, float] = {}
    require_weights_kept = weights_kept_by(model)
    for of_one_loader in run(model, datamodule=datamodule, verbose=False):
        values |= of_one_loader
    require_weights_kept()
    if metric not in values:
        option = "--test_metric" if split == "test" else "--monitor"
        raise UserError(
            f"the {split} step of {type(model).__name__} logs {', '.join(values) or 'nothing'}, "
            f"and not {metric}; log it, or name another metric with {option}"
        )
    return shortest(values[metric])
