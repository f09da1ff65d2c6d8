"""What a run shows while it trains."""

import io
import pickle

import pytest
from fake_trainer import fake_trainer, run_epochs
from rich.console import Console

from bclightning.runs.progress import RunProgress


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_says_epoch_errors_and_time_left(tmp_path, terminal):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=160)
    keeper = run_epochs(tmp_path, [2.0])
    progress = RunProgress(console)
    progress.on_train_start(fake_trainer(0, 2.0, keeper), None)
    progress.on_train_epoch_start(fake_trainer(0, 2.0), None)
    progress.on_train_batch_end(fake_trainer(0, 2.0), None, None, None, 4)
    progress.on_train_epoch_start(fake_trainer(1, 3.5), None)
    progress.on_train_end(fake_trainer(2, 2.0), None)
    said = text.getvalue()
    assert "validation error 3.50 %  (best 2.00 %)" in said
    assert "validation error 2.00 %  (best)" in said
    if not terminal:
        lines = said.splitlines()
        assert [line.split("  ")[0] for line in lines] == ["epoch 1/9", "epoch 2/9"]
        assert all("time left 0:00:00" in line for line in lines)
    else:
        assert "5/10" in said


def test_progress_can_be_turned_off(tmp_path):
    text = io.StringIO()
    progress = RunProgress(Console(file=text))
    progress.disable()
    progress.on_train_start(fake_trainer(0, 2.0), None)
    progress.on_train_end(fake_trainer(1, 2.0), None)
    assert text.getvalue() == ""


def test_it_can_be_sent_to_the_processes_that_train():
    """As ddp_spawn does."""
    sent = pickle.loads(pickle.dumps(RunProgress(epochs=3)))
    assert sent.is_enabled
