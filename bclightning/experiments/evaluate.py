"""`bcl validate`, `bcl test` and `bcl predict`: a trained network rebuilt from its own run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import LightningDataModule, Trainer
from rich.console import Console

from bclightning.errors import UserError
from bclightning.experiments.folder import RunFolder
from bclightning.experiments.job import SETTINGS
from bclightning.experiments.quiet import quiet_lightning
from bclightning.experiments.record import RunRecord
from bclightning.experiments.report import method_table
from bclightning.experiments.settings import overrides
from bclightning.inference import (
    EvalWeights,
    MethodError,
    chosen_method,
    ensemble_errors,
    errors_by_method,
)
from bclightning.inference.methods import Batches
from bclightning.inference.scores import scores_as_csv
from bclightning.nn import binary_layers, reestimate_batch_norm_
from bclightning.storage import checked_target, write_text
from bclightning.training import Classifier
from bclightning.training.checkpoint import load_checkpoint
from bclightning.training.cli import RunCLI, take_option

# Errors of an ensemble of the paper's networks change little beyond.
ENSEMBLE_SIZE = 10

SHOWN = {
    "--run": "The run: its folder, or its id below results/runs. Its own configuration and best "
    "checkpoint are used.",
    "--ckpt_path": "Another checkpoint; needed with --config and without --run.",
}


@dataclass(frozen=True)
class Rebuilt:
    """A trained network as a command line names it, and what it takes to evaluate it.

    Attributes:
        model: The network, with its weights.
        datamodule: Its data, prepared.
        trainer: A trainer, which says device and precision.
        name: The run, or the checkpoint, as it was named.
        folder: Of the run; ``None`` where a checkpoint alone was named.
        as_recorded: Whether no option makes it something else than the run's record describes.
    """

    model: Classifier
    datamodule: LightningDataModule
    trainer: Trainer
    name: str
    folder: RunFolder | None
    as_recorded: bool


def statistics_batches(datamodule: LightningDataModule) -> Batches:
    """Training images in a fixed order where the data module offers them, else its batches."""
    source = getattr(datamodule, "statistics_dataloader", None) or datamodule.train_dataloader
    return source()


def evaluate_methods(
    model: Classifier,
    datamodule: LightningDataModule,
    trainer: Trainer,
    split: Literal["validate", "test"],
    kinds: Sequence[EvalWeights] = (),
    ensemble_size: int = 0,
) -> list[MethodError]:
    """Errors of a network on a split, by weights and batch-norm statistics.

    It runs on the trainer's device and in its precision, over the whole split in one process.

    Args:
        model: The network.
        datamodule: The data.
        trainer: Says device and precision.
        split: ``validate`` or ``test``.
        kinds: The weights to use; binary and real ones when left out.
        ensemble_size: Networks in an ensemble.
    """
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
    return errors_by_method(model, batches, statistics, kinds, precision)


def load_weights(model: Classifier, path: str | Path) -> None:
    """Load the weights of a Lightning checkpoint into a model.

    Raises:
        UserError: The file is not a checkpoint, or it belongs to another network.
    """
    state = load_checkpoint(path)["state_dict"]
    if not any(key.startswith("network.") for key in state):
        state = {f"network.{key}": value for key, value in state.items()}
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).strip().splitlines()[1:2]
        raise UserError(
            f"the checkpoint {path} belongs to another network: {' '.join(first).strip()}"
        ) from error


def evaluate(arguments: Sequence[str], command: Literal["validate", "test"]) -> list[MethodError]:
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
    Console().print(method_table(f"{name}: {split} error", errors, chosen_method(model)))
    return errors


def _remember(folder: RunFolder, errors: Sequence[MethodError]) -> None:
    """Add to the record of a finished run what it does not have of its best epoch's test errors."""
    if not folder.record.exists():
        return
    record = RunRecord.read(folder.record)
    new = [
        error.entry()
        for error in errors
        if record.error_with(error.weights, error.batch_norm) is None
    ]
    if record.status == "finished" and record.stage != "tune" and new:
        record.test += new
        record.write(folder.record)


def predict(arguments: Sequence[str]) -> Path:
    """Run `bcl predict`: write the class and the scores of each test image to a CSV file."""
    output, rest = take_option(arguments, "--output")
    given = rebuilt(
        rest, "predict", {"--output": "The CSV file to write; predictions.csv when left out."}
    )
    model, datamodule = given.model, given.datamodule
    path = checked_target(output or "predictions.csv")
    weights, statistics = chosen_method(model)
    if statistics == "re-estimated":
        datamodule.setup("fit")
        batches = statistics_batches(datamodule)
        reestimate_batch_norm_(model, (images for images, _ in batches))
    predictions = given.trainer.predict(model, datamodule=datamodule) or []
    scores = torch.cat([scores for scores in predictions if isinstance(scores, torch.Tensor)])
    classes = getattr(datamodule, "class_names", None) or [str(i) for i in range(scores.shape[1])]
    write_text(path, scores_as_csv(range(len(scores)), scores, classes))
    Console().print(
        f"{given.name}: {len(scores)} predictions with {weights} weights and batch-norm statistics "
        f"{statistics}, in {path}",
        highlight=False,
        soft_wrap=True,
    )
    return path


def _kinds(wanted: str | None, size: str | None) -> list[EvalWeights]:
    if size is not None and (wanted != "ensemble" or not size.isdecimal() or int(size) < 1):
        raise UserError("--ensemble-size is a number of networks, for --eval-weights ensemble")
    match wanted:
        case None:
            return []
        case "binary" | "real" | "ensemble":
            return [wanted]
    raise UserError(f"--eval-weights is binary, real or ensemble, and not {wanted!r}")


def rebuilt(arguments: Sequence[str], command: str, shown: dict[str, str] | None = None) -> Rebuilt:
    """Rebuild a trained network, its data and a trainer from a command line that names a run.

    Args:
        arguments: The command line after the command's name.
        command: The command.
        shown: More options, which the caller has taken out already, with their help.

    Raises:
        UserError: There is no such run, or what is asked for does not fit it.
    """
    run, rest = take_option(arguments, "--run")
    checkpoint, rest = take_option(rest, "--ckpt_path")
    helping = {"-h", "--help"} & set(rest)
    folder = None
    recorded = checkpoint is None and not overrides(rest)
    if run is not None:
        folder = RunFolder.find(run)
        rest = ["--config", str(folder.config), *rest]
        checkpoint = checkpoint or str(folder.checkpoints / "best.ckpt")
    elif checkpoint is None and not helping:
        raise UserError(
            f"say which trained network: bcl {command} --run RUN, "
            f"or bcl {command} --config FILE --ckpt_path CHECKPOINT"
        )
    quiet_lightning()
    cli = RunCLI(
        rest,
        prog=f"bcl {command}",
        description="Evaluate a trained network.",
        settings=SETTINGS,
        shown={**SHOWN, **(shown or {})},
    )
    model, datamodule = cli.build_modules()
    trainer = cli.build_trainer()
    load_weights(model, str(checkpoint))
    datamodule.prepare_data()
    return Rebuilt(model, datamodule, trainer, run or str(checkpoint), folder, recorded)
