"""The beginning of a run, exactly as the whole run begins."""

from lightning.pytorch import Callback, LightningModule, Trainer


class FirstEpochs(Callback):
    """Stop after so many epochs, while learning rates decay as for all that were asked for.

    Args:
        epochs: Epochs counted from the run's beginning.

    Example:
        >>> trainer = Trainer(
        ...     max_epochs=100, callbacks=[FirstEpochs(2)], accelerator="cpu", logger=False
        ... )
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask the trainer to stop once they are done."""
        if trainer.current_epoch + 1 >= self.epochs:
            trainer.should_stop = True
