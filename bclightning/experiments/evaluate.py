"""`bcl validate`, `bcl test` and `bcl predict`: a trained network rebuilt from its own run."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import LightningDataModule, Trainer
from rich.console import Console

from bclightning.errors import UserError
from bclightning.experiments.folder import RunFolder
from bclightning.experiments.job import Job
from bclightning.experiments.quiet import quiet_lightning
from bclightning.experiments.report import method_table
from bclightning.experiments.wandb_settings import WandbSettings
from bclightning.inference import MethodError, chosen_method, errors_by_method
from bclightning.inference.methods import Batches
from bclightning.nn import reestimate_batch_norm_
from bclightning.storage import write_text
from bclightning.training import Classifier
from bclightning.training.checkpoint import load_checkpoint
from bclightning.training.cli import RunCLI, take_option

SHOWN = {
    "--run": "The run: its folder, or its id below results/runs. Its own configuration and best "
    "checkpoint are used.",
    "--ckpt_path": "Another checkpoint; needed with --config and without --run.",
}


def statistics_batches(datamodule: LightningDataModule) -> Batches:
    """Training images in a fixed order where the data module offers them, else its batches."""
    source = getattr(datamodule, "statistics_dataloader", None) or datamodule.train_dataloader
    return source()


def evaluate_methods(
    model: Classifier,
    datamodule: LightningDataModule,
    trainer: Trainer,
    split: Literal["validate", "test"],
) -> list[MethodError]:
    """Errors of a network on a split, by weights and batch-norm statistics.

    It runs on the trainer's device and in its precision, over the whole split in one process.
    """
    datamodule.setup("fit")
    if split == "test":
        datamodule.setup("test")
        batches = datamodule.test_dataloader()
    else:
        batches = datamodule.val_dataloader()
    model.to(trainer.strategy.root_device)
    return errors_by_method(
        model, batches, statistics_batches(datamodule), trainer.precision_plugin.forward_context
    )


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
    model, datamodule, trainer, name = _rebuilt(arguments, command)
    errors = evaluate_methods(model, datamodule, trainer, command)
    split = "test" if command == "test" else "validation"
    Console().print(method_table(f"{name}: {split} error", errors, chosen_method(model)))
    return errors


def predict(arguments: Sequence[str]) -> Path:
    """Run `bcl predict`: write the class and the scores of each test image to a CSV file."""
    output, rest = take_option(arguments, "--output")
    model, datamodule, trainer, name = _rebuilt(
        rest, "predict", {"--output": "The CSV file to write; predictions.csv when left out."}
    )
    weights, statistics = chosen_method(model)
    if statistics == "re-estimated":
        datamodule.setup("fit")
        batches = statistics_batches(datamodule)
        reestimate_batch_norm_(model, (images for images, _ in batches))
    predictions = trainer.predict(model, datamodule=datamodule) or []
    scores = torch.cat([scores for scores in predictions if isinstance(scores, torch.Tensor)])
    names = getattr(datamodule, "class_names", None) or range(scores.shape[1])
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "class", *(f"score {name}" for name in names)])
    for index, row in enumerate(scores.tolist()):
        best = max(range(len(row)), key=row.__getitem__)
        writer.writerow([index, names[best], *(f"{score:.6g}" for score in row)])
    path = Path(output or "predictions.csv")
    write_text(path, text.getvalue())
    Console().print(
        f"{name}: {len(scores)} predictions with {weights} weights and batch-norm statistics "
        f"{statistics}, in {path}",
        highlight=False,
        soft_wrap=True,
    )
    return path


def _rebuilt(
    arguments: Sequence[str], command: str, shown: dict[str, str] | None = None
) -> tuple[Classifier, LightningDataModule, Trainer, str]:
    run, rest = take_option(arguments, "--run")
    checkpoint, rest = take_option(rest, "--ckpt_path")
    helping = {"-h", "--help"} & set(rest)
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
        settings={"wandb": WandbSettings, "job": Job},
        shown={**SHOWN, **(shown or {})},
    )
    model, datamodule = cli.build_modules()
    trainer = cli.build_trainer()
    load_weights(model, str(checkpoint))
    datamodule.prepare_data()
    return model, datamodule, trainer, run or str(checkpoint)
