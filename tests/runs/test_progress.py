"""What a run shows while it trains."""

import io
import itertools
import pickle
import re

import pytest
import torch
from fake_trainer import fake_trainer
from rich.console import Console

from bclightning.runs import progress as progress_module
from bclightning.runs.checkpoint import RunCheckpoint
from bclightning.runs.metrics_csv import MetricsTable
from bclightning.runs.progress import RunProgress

EPOCHS_ROW = re.compile(
    r"epochs +[━╸╺ ]+ +(\d+)/500 +\d+:\d\d:\d\d +(?:\d+:\d\d:\d\d|-:--:--) left\s*"
)
BATCHES_ROW = re.compile(r"batches +[━╸╺ ]+ +\d+/(\d+|\?) +([\d.]+/s)? +(loss \S+)?\s*")


def shown(folder, errors, terminal=True, validates=lambda epoch: True, batches=10, **options):
    """What is shown of some epochs, driven in Lightning's order, without control sequences."""
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=80, height=24)
    progress = RunProgress(console, epochs=options.pop("epochs", None))
    keeper = RunCheckpoint(folder, MetricsTable(folder / "metrics.csv"), **options)
    trainer = fake_trainer(0, 0.0, keeper)
    trainer.num_training_batches = batches
    trainer.callback_metrics = {}
    progress.on_train_start(trainer, None)
    for epoch, error in enumerate(errors):
        progress.on_train_epoch_start(trainer, None)
        progress.on_train_batch_end(trainer, None, {"loss": torch.tensor(0.25)}, None, 4)
        if validates(epoch):
            trainer.callback_metrics[keeper.monitor] = torch.as_tensor(error)
            keeper.on_validation_end(trainer, None)
        trainer.callback_metrics["train/loss"] = torch.tensor(0.5)
        keeper.on_train_epoch_end(trainer, None)
        trainer.current_epoch = epoch + 1
    progress.on_train_end(trainer, None)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue()).replace("\r", "\n")


@pytest.fixture
def drawn_at_once(monkeypatch):
    monkeypatch.setattr(progress_module, "REFRESH_SECONDS", 0.0)


@pytest.mark.parametrize("terminal", ["a pipe", "TERM=dumb"])
def test_a_pipe_and_a_dumb_terminal_get_a_line_an_epoch(tmp_path, monkeypatch, terminal):
    monkeypatch.setenv("TERM", "dumb")
    said = shown(tmp_path, [2.0, 3.5, 2.0], terminal == "TERM=dumb")
    assert re.sub("left .*", "left", said).splitlines() == [
        "epoch 1/9  loss 0.5000  validation error 2.00 %  (best)  time left",
        "epoch 2/9  loss 0.5000  validation error 3.50 %  (best 2.00 % in epoch 1)  time left",
        "epoch 3/9  loss 0.5000  validation error 2.00 %  (best)  time left",
    ]
    assert all(re.search(r"time left 0:00:0\d$", line) for line in said.splitlines())


@pytest.mark.parametrize("monitor", ["val/error", "val/a_metric_of_" + 9 * "many_words_"])
def test_at_80_columns_counters_and_times_are_whole_and_bars_stay_where_they_are(
    tmp_path, drawn_at_once, monitor
):
    said = shown(tmp_path, [4.67, 2.0, 66.67, 1.33], epochs=500, monitor=monitor)
    lines = said.splitlines()
    assert max(map(len, lines)) <= 80
    epochs = [line for line in lines if line.startswith("epochs")]
    assert [int(EPOCHS_ROW.fullmatch(line)[1]) for line in epochs][-1] == 4
    batches = [line for line in lines if line.startswith("batches")]
    assert all(BATCHES_ROW.fullmatch(line) for line in batches), batches
    assert any("/s" in line and "loss 0.25" in line for line in batches)
    ends = {line.rindex(bar) for line in (*epochs, *batches) for bar in line if bar in "━╸╺"}
    assert max(ends) == 47
    if monitor == "val/error":
        assert "epoch 3: loss 0.5000  validation error 66.67 %  (best 2.00 % in epoch 2)" in lines
        assert "epoch 4: loss 0.5000  validation error 1.33 %  (best)" in "\n".join(lines)


def test_the_bars_of_data_that_does_not_know_its_length_have_no_total(tmp_path, drawn_at_once):
    said = shown(tmp_path, [4.67, 2.0], batches=float("inf"), epochs=500)
    assert re.search(r"batches .* 5/\? ", said)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_an_epoch_is_marked_best_whatever_the_precision_of_its_metric(tmp_path, dtype):
    values = [torch.tensor(value, dtype=dtype) for value in (3.0, 8 / 3, 7 / 3, 5 / 3)]
    said = shown(tmp_path, values, terminal=False)
    assert said.count("(best)") == 4


def test_an_epoch_without_validation_has_no_score_of_an_earlier_one(tmp_path):
    said = shown(tmp_path, [2.0, 2.0], terminal=False, validates=lambda epoch: epoch == 0)
    first, second = said.splitlines()
    assert "validation error 2.00 %  (best)" in first
    assert "epoch 2/9  loss 0.5000  (best 2.00 % in epoch 1)" in second


def test_a_metrics_name_is_text(tmp_path, drawn_at_once):
    said = shown(tmp_path, [2.0, 3.0], monitor="val_[/red]\x1b]0;x\x07", epochs=500)
    assert r"val_[/red]\x1b]0;x\x07 2" in said


def test_it_draws_no_more_often_however_fast_steps_and_epochs_are(tmp_path, monkeypatch):
    monkeypatch.setattr(progress_module, "REFRESH_SECONDS", 3600.0)
    errors = list(itertools.repeat(2.0, 40))
    assert shown(tmp_path, errors, epochs=500).count("epochs ") <= 3


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
