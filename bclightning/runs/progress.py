"""Progress of a run: bars and time left on a terminal, a line an epoch elsewhere."""

import functools
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from bclightning.formatting import describe_score, printable, score
from bclightning.runs.checkpoint import RunCheckpoint
from bclightning.runs.metrics_csv import EPOCH
from bclightning.vocabulary import TRAIN_LOSS

REFRESH_SECONDS = 0.2

# Widths of the two columns beside the bars, so that no bar moves as the figures in them change.
_TIME_WIDTH = 8
_LOSS_WIDTH = 14


class _TwoColumns(ProgressColumn):
    """A column that shows one thing in the row of epochs and another in that of batches."""

    def __init__(
        self,
        epochs: TimeElapsedColumn | TimeRemainingColumn,
        batches: str,
        width: int,
        suffix: str = "",
    ) -> None:
        # What does not fit shortens the bars, and never itself.
        super().__init__(Column(justify="right", no_wrap=True, min_width=width))
        self._epochs = epochs
        self._batches = batches
        self._suffix = suffix

    def render(self, task: Task) -> Text:
        """The cell of a row."""
        if self._batches in task.fields:
            return Text(task.fields[self._batches])
        return self._epochs.render(task).append(self._suffix)


class _Bars(Progress):
    """Epochs of the run, batches of the epoch, and below them how the last epoch went."""

    note = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bars and the note, which wraps rather than takes room from them."""
        yield from super().get_renderables()
        yield Text(self.note)


class RunProgress(ProgressBar):
    """Show the epochs of a run, the time that is left, and the monitored metric so far.

    On a terminal two bars: epochs of the run with the time that it takes, and batches of the epoch
    with their rate and loss. Elsewhere, and where ``TERM=dumb``, one line per epoch. It is for
    `bclightning.runs.fit`, whose checkpoints know the best epoch.

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
        self._bars: _Bars | None = None
        self._epochs = self._batches = TaskID(0)
        self._enabled = True
        self._first_epoch = 0
        self._started = self._epoch_started = self._shown = 0.0

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
        self._epoch_started = self._started
        # TERM=dumb is a terminal too, but one that cannot move its cursor.
        if not (self._enabled and self._console.is_interactive):
            return
        self._bars = bars = _Bars(
            TextColumn("{task.description}"),
            BarColumn(None),
            MofNCompleteColumn(table_column=Column(justify="right", no_wrap=True)),
            _TwoColumns(TimeElapsedColumn(), "rate", _TIME_WIDTH),
            _TwoColumns(TimeRemainingColumn(), "loss", _LOSS_WIDTH, " left"),
            console=self._console,
            auto_refresh=False,
            expand=True,
        )
        epochs = self._total or trainer.max_epochs
        self._epochs = bars.add_task("epochs", total=epochs, completed=trainer.current_epoch)
        self._batches = bars.add_task("batches", total=_batches(trainer), rate="", loss="")
        bars.start()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bars, a few times a second at most: drawing costs more than a small step."""
        if self._bars is None:
            return
        now = time.monotonic()
        if now - self._shown < REFRESH_SECONDS:
            return
        self._shown = now
        done, total = batch_idx + 1, _batches(trainer)
        rate = _rate(done / max(now - self._epoch_started, 1e-9))
        self._bars.update(
            self._batches, completed=done, total=total, rate=rate, loss=_loss(outputs)
        )
        # Fractions of an epoch let the time left be told within the first one.
        completed = trainer.current_epoch + (done / total if total else 0.0)
        self._bars.update(self._epochs, completed=completed, refresh=True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how the epoch before went: only now are all its metrics in."""
        if trainer.current_epoch > self._first_epoch:
            self._report(trainer, trainer.current_epoch)
        self._epoch_started = time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say how the last epoch went, and leave the finished bars on the screen."""
        if trainer.current_epoch > self._first_epoch:
            self._report(trainer, trainer.current_epoch)
        if self._bars is not None:
            self._bars.update(self._batches, completed=_batches(trainer))
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
        note = self._note(done)
        if self._bars is None:
            seconds = (time.monotonic() - self._started) / (done - self._first_epoch)
            total = self._total or trainer.max_epochs or done
            left = seconds * (total - done)
            line = "  ".join(filter(None, (f"epoch {done}/{total}", note)))
            self._console.print(
                f"{line}  time left {_clock(left)}", highlight=False, markup=False, soft_wrap=True
            )
        else:
            # Drawn with the next batch, or at the end.
            self._bars.note = f"epoch {done}: {note}" if note else ""
            self._bars.update(self._epochs, completed=done)

    def _note(self, done: int) -> str:
        """How the last of `done` epochs went, as the checkpoint judged it."""
        checkpoint = self._checkpoint
        if checkpoint is None:
            return ""
        row: Mapping[str, float] = next(iter(checkpoint.table.rows[-1:]), {})
        if row.get(EPOCH) != done - 1:
            return ""
        parts = []
        if TRAIN_LOSS in row:
            parts.append(f"loss {row[TRAIN_LOSS]:.4f}")
        if checkpoint.monitor in row:
            parts.append(describe_score(checkpoint.monitor, row[checkpoint.monitor]))
        if checkpoint.best_epoch == done - 1:
            parts.append("(best)")
        elif checkpoint.best_epoch is not None:
            best = score(checkpoint.monitor, checkpoint.best)
            parts.append(f"(best {best} in epoch {checkpoint.best_epoch + 1})")
        return printable("  ".join(parts))


def _batches(trainer: Trainer) -> int | None:
    """Number of batches of an epoch; ``None`` where the data does not know it."""
    number = trainer.num_training_batches
    return int(number) if math.isfinite(number) else None


def _rate(speed: float) -> str:
    """Batches a second.

    Example:
        >>> _rate(0.24), _rate(12.34), _rate(1234.5)
        ('0.24/s', '12.3/s', '1234/s')
    """
    return f"{speed:.2g}/s" if speed < 1 else f"{speed:.1f}/s" if speed < 100 else f"{speed:.0f}/s"


def _loss(outputs: Any) -> str:
    """The loss in what a training step returned; empty where there is none."""
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    return f"loss {loss.item():.4g}" if isinstance(loss, torch.Tensor) and loss.numel() == 1 else ""


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
