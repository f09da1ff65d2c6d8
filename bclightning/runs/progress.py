"""Progress of a run: bars and time left on a terminal, a line an epoch elsewhere."""

import functools
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bclightning.formatting import describe_score, score
from bclightning.runs.checkpoint import RunCheckpoint
from bclightning.runs.metrics_csv import shortest
from bclightning.vocabulary import TRAIN_LOSS

REFRESH_SECONDS = 0.2


class RunProgress(ProgressBar):
    """Show the epochs of a run, the time that is left, and the monitored metric so far.

    On a terminal two bars: epochs of the run and batches of the epoch. Elsewhere one line per
    epoch. It is for `bclightning.runs.fit`, whose checkpoints know the best epoch.

    Args:
        console: Console to print to; standard error if ``None``.
        epochs: Number of epochs that there will be; the trainer's if ``None``.

    Example:
        >>> from bclightning.runs import fit
        >>> progress = RunProgress(epochs=3)  # for fit(config, callbacks=[progress], epochs=3)
        >>> progress.is_enabled
        True
    """

    def __init__(self, console: Console | None = None, epochs: int | None = None) -> None:
        super().__init__()
        self._total = epochs
        self._checkpoint: RunCheckpoint | None = None
        self._given_console = console
        self._bars: Progress | None = None
        self._epochs: TaskID | None = None
        self._batches: TaskID | None = None
        self._enabled = True
        self._first_epoch = 0
        self._started = self._shown = 0.0

    @functools.cached_property
    def _console(self) -> Console:
        # Made when it is used, since with ddp_spawn a callback is sent to other processes before.
        return self._given_console or Console(stderr=True)

    @property
    def is_enabled(self) -> bool:
        """Whether anything is shown."""
        return self._enabled

    def disable(self) -> None:
        """Print nothing, as Lightning asks on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Print again."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bars."""
        found = [c for c in trainer.checkpoint_callbacks if isinstance(c, RunCheckpoint)]
        self._checkpoint = found[0] if found else None
        self._started = time.monotonic()
        self._first_epoch = trainer.current_epoch
        if not (self._enabled and self._console.is_terminal):
            return
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            auto_refresh=False,
        )
        self._epochs = self._bars.add_task(
            "epochs",
            total=self._total or trainer.max_epochs,
            completed=trainer.current_epoch,
            note="",
        )
        self._batches = self._bars.add_task("batches", total=trainer.num_training_batches, note="")
        self._bars.start()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bars, a few times a second at most: drawing costs more than a small step."""
        if self._bars is None or self._batches is None or self._epochs is None:
            return
        now = time.monotonic()
        if now - self._shown < REFRESH_SECONDS:
            return
        self._shown = now
        done = batch_idx + 1
        self._bars.update(self._batches, completed=done)
        # Fractions of an epoch let the time left be told within the first one.
        fraction = done / max(float(trainer.num_training_batches), 1.0)
        self._bars.update(self._epochs, completed=trainer.current_epoch + fraction)
        self._bars.refresh()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how the epoch before went: only now are all its metrics in."""
        if trainer.current_epoch > self._first_epoch:
            self._report(trainer, trainer.current_epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how the last epoch went, and leave the finished bars on the screen."""
        if trainer.current_epoch > self._first_epoch:
            self._report(trainer, trainer.current_epoch)
        self._close()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Give the terminal back before an error is printed."""
        self._close()

    def _close(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _report(self, trainer: Trainer, done: int) -> None:
        if not self._enabled:
            return
        note = self._note(trainer)
        if self._bars is None:
            seconds = (time.monotonic() - self._started) / (done - self._first_epoch)
            total = self._total or trainer.max_epochs or done
            left = seconds * (total - done)
            self._console.print(
                f"epoch {done}/{total}  {note}  time left {_clock(left)}",
                highlight=False,
                soft_wrap=True,
            )
        elif self._epochs is not None:
            self._bars.update(self._epochs, completed=done, note=note)
            self._bars.refresh()

    def _note(self, trainer: Trainer) -> str:
        metrics = trainer.callback_metrics
        parts = []
        if TRAIN_LOSS in metrics:
            parts.append(f"loss {float(metrics[TRAIN_LOSS]):.4f}")
        checkpoint = self._checkpoint
        if checkpoint is not None and checkpoint.monitor in metrics:
            # As the checkpoint has it, which is what it compared.
            value = shortest(float(metrics[checkpoint.monitor]))
            parts.append(describe_score(checkpoint.monitor, value))
            if checkpoint.is_best(value):
                parts.append("(best)")
            else:
                parts.append(f"(best {score(checkpoint.monitor, checkpoint.best)})")
        return "  ".join(parts)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
