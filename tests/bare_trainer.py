"""A Trainer that trains, and neither logs, keeps nor prints."""

from lightning.pytorch import Trainer


def bare_trainer(max_epochs: int = 1, **settings) -> Trainer:
    return Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )
