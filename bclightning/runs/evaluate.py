"""`bcl validate` and `bcl test`: the errors of a trained network, by method."""

from collections.abc import Sequence
from typing import Literal

from lightning.pytorch import LightningDataModule, Trainer
from rich.console import Console

from bclightning.cli.tables import method_table
from bclightning.errors import UserError
from bclightning.evaluation import (
    EvaluationResult,
    default_evaluation,
    ensemble_errors,
    errors_by_weights,
)
from bclightning.nn import binary_layers
from bclightning.runs.config import take_option
from bclightning.runs.folder import RunFolder
from bclightning.runs.rebuild import rebuilt, require_loader, statistics_batches
from bclightning.runs.record import RunRecord
from bclightning.training import Classifier
from bclightning.vocabulary import EvalWeights

# Errors of an ensemble of the paper's networks change little beyond.
ENSEMBLE_SIZE = 10


def evaluate_methods(
    model: Classifier,
    datamodule: LightningDataModule,
    trainer: Trainer,
    split: Literal["validate", "test"],
    kinds: Sequence[EvalWeights] = (),
    ensemble_size: int = 0,
) -> list[EvaluationResult]:
    """Errors of a network on a split, by weights and batch-norm statistics.

    It runs on the trainer's device and in its precision, over the whole split in one process.

    Args:
        model: The network.
        datamodule: The data.
        trainer: Says device and precision.
        split: ``validate`` or ``test``.
        kinds: The weights to use; binary and real ones when left out.
        ensemble_size: Networks in an ensemble.

    Raises:
        UserError: The data module has no such split.
    """
    require_loader(datamodule, "test_dataloader" if split == "test" else "val_dataloader")
    datamodule.setup("fit")
    if split == "test":
        datamodule.setup("test")
        batches = datamodule.test_dataloader()
    else:
        batches = datamodule.val_dataloader()
    model.to(trainer.strategy.root_device)
    statistics = statistics_batches(datamodule)
    precision = trainer.precision_plugin.forward_context
    if "ensemble" in kinds:
        size = ensemble_size or ENSEMBLE_SIZE
        return ensemble_errors(model, batches, statistics, size, precision=precision)
    return errors_by_weights(model, batches, statistics, kinds, precision)


def evaluate(
    arguments: Sequence[str], command: Literal["validate", "test"]
) -> list[EvaluationResult]:
    """Run `bcl validate` or `bcl test`: print the errors of a trained network by method."""
    wanted, rest = take_option(arguments, "--eval-weights")
    size, rest = take_option(rest, "--ensemble-size")
    kinds = _kinds(wanted, size)
    given = rebuilt(
        rest,
        command,
        {
            "--eval-weights": "Only these weights: binary, real or ensemble (section 2.6).",
            "--ensemble-size": "Networks in the ensemble, drawn by the stochastic rule; "
            f"{ENSEMBLE_SIZE} when left out.",
        },
    )
    model, name = given.model, given.name
    if kinds and kinds != ["real"] and not binary_layers(model):
        raise UserError(f"{name} has no binary weights; --eval-weights real is what it has")
    errors = evaluate_methods(
        model, given.datamodule, given.trainer, command, kinds, int(size or 0)
    )
    if command == "test" and given.folder is not None and given.as_recorded:
        _remember(given.folder, errors)
    split = "test" if command == "test" else "validation"
    Console().print(method_table(f"{name}: {split} error", errors, default_evaluation(model)))
    return errors


def _remember(folder: RunFolder, errors: Sequence[EvaluationResult]) -> None:
    """Add to the record of a finished run what it does not have of its best epoch's test errors."""
    if not folder.record.exists():
        return
    record = RunRecord.read(folder.record)
    new = [
        error.entry()
        for error in errors
        if record.tested_with(error.weights, error.batch_norm) is None
    ]
    if record.status == "finished" and record.stage != "tune" and new:
        record.test += new
        record.write(folder.record)


def _kinds(wanted: str | None, size: str | None) -> list[EvalWeights]:
    if size is not None and (wanted != "ensemble" or not size.isdecimal() or int(size) < 1):
        raise UserError("--ensemble-size is a number of networks, for --eval-weights ensemble")
    match wanted:
        case None:
            return []
        case "binary" | "real" | "ensemble":
            return [wanted]
    raise UserError(f"--eval-weights is binary, real or ensemble, and not {wanted!r}")
