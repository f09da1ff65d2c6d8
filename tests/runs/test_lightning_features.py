"""Lightning's own options and callbacks do in a run what Lightning says that they do."""

import contextlib
import logging
import sys

import pytest
from stopped_runs import differences, end_of, same, stop_in_the_second_epoch, unfinished

from bclightning.cli.main import main
from bclightning.runs.metrics_csv import MetricsTable
from bclightning.runs.record import RunRecord
from bclightning.tracking.logger import TrackingWarning

RUNS = "results/runs/digits"


@pytest.mark.parametrize("steps", [30, 46, 60, 1000])
def test_a_limit_of_steps_is_kept_by_a_run_that_was_stopped(folder, tiny, steps):
    """23 steps are an epoch: the limit lies in the second, at its end, in the third, beyond."""
    words = ["fit", "--config", tiny, "--trainer.max_steps", str(steps)]
    main([*words, "--run_id", "whole"])
    stop_in_the_second_epoch(*words, "--run_id", "stopped")
    main(["fit", "--resume", "stopped"])
    assert differences(folder / RUNS / "stopped", folder / RUNS / "whole") == []


def test_several_validations_an_epoch_do_not_disturb_a_resumed_run(folder, tiny):
    words = ["fit", "--config", tiny, "--trainer.val_check_interval", "0.5"]
    main([*words, "--run_id", "whole"])
    stop_in_the_second_epoch(*words, "--run_id", "stopped")
    main(["fit", "--resume", "stopped"])
    assert differences(folder / RUNS / "stopped", folder / RUNS / "whole") == []


def test_a_rate_that_falls_on_a_plateau_does_so_in_a_resumed_run(folder):
    """Its step is the last thing of an epoch, after the checkpoint."""
    words = ["fit", "--model", "own_modules.OnPlateau", "--data", "own_modules.Table"]
    words += ["--monitor", "val_loss", "--wandb.mode", "disabled", "--trainer.max_epochs", "4"]
    runs = folder / "results/runs/table-fit"
    main([*words, "--run_id", "whole"])
    stop_in_the_second_epoch(*words, "--run_id", "stopped")
    main(["fit", "--resume", str(runs / "stopped")])
    assert differences(runs / "stopped", runs / "whole") == []


def test_a_run_that_stopped_early_and_was_then_killed_trains_no_further(folder, tiny):
    stopping = ["--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping"]
    stopping += ["--trainer.callbacks.monitor=val/error", "--trainer.callbacks.patience=1"]
    stopping += ["--trainer.callbacks.min_delta=100"]
    main(["fit", "--config", tiny, *stopping, "--run_id", "r"])
    before = end_of(folder / RUNS / "r")
    assert before["step"] == (1, 46, before["results"][0])
    unfinished(folder / RUNS / "r")
    main(["fit", "--resume", "r"])
    assert same(end_of(folder / RUNS / "r"), before)


def with_callback(name: str, *more: str) -> list[str]:
    return [f"--trainer.callbacks+=lightning.pytorch.callbacks.{name}", *more]


@pytest.mark.parametrize("name", ["LearningRateFinder", "BatchSizeFinder"])
def test_a_search_before_the_first_epoch_leaves_the_run_as_it_is(folder, tiny, name):
    limit = ["--trainer.callbacks.num_training_steps=20"]
    if name == "BatchSizeFinder":
        limit = ["--trainer.callbacks.max_trials=2", "--trainer.callbacks.steps_per_trial=1"]
    main(["fit", "--config", tiny, *with_callback(name, *limit), "--run_id", "r"])
    found = RunRecord.read(folder / RUNS / "r/run.json")
    assert found.status == "finished"
    assert [row["epoch"] for row in MetricsTable(folder / RUNS / "r/metrics.csv").rows] == [0, 1, 2]


def test_a_sanity_check_is_no_validation_of_an_epoch(folder, tiny):
    rare = ["--trainer.num_sanity_val_steps=2", "--trainer.check_val_every_n_epoch=2"]
    main(["fit", "--config", tiny, *rare, "--run_id", "r"])
    rows = MetricsTable(folder / RUNS / "r/metrics.csv").rows
    assert ["val/error" in row for row in rows] == [False, True, False]
    assert RunRecord.read(folder / RUNS / "r/run.json").best_epoch == 1


@pytest.mark.parametrize("missing", [False, True], ids=["disabled", "not installed"])
def test_rates_are_monitored_without_w_and_b(folder, tiny, monkeypatch, missing):
    words = ["fit", "--config", tiny, *with_callback("LearningRateMonitor"), "--run_id", "r"]
    if missing:
        monkeypatch.setitem(sys.modules, "wandb", None)
        with pytest.warns(TrackingWarning, match="the run continues without it"):
            main([*words, "--wandb.mode", "offline"])
    else:
        main(words)
    rows = MetricsTable(folder / RUNS / "r/metrics.csv").rows
    assert [row["lr-BinaryAdam/unscaled"] for row in rows] == [row["learning_rate"] for row in rows]


@pytest.mark.parametrize("name", ["RichProgressBar", "TQDMProgressBar"])
def test_a_progress_bar_of_the_configuration_takes_the_place_of_ours(folder, tiny, capsys, name):
    main(["fit", "--config", tiny, *with_callback(name), "--trainer.max_epochs=1"])
    said = capsys.readouterr()
    assert "time left" not in said.err
    assert "Epoch 0" in said.out + said.err


@pytest.mark.parametrize("name", ["simple", "advanced"])
def test_a_profile_is_shown(folder, tiny, caplog, name):
    with logging_to(caplog.handler):
        main(["fit", "--config", tiny, "--trainer.max_epochs=1", "--trainer.profiler", name])
    assert "run_training_epoch" in caplog.text


@contextlib.contextmanager
def logging_to(handler):
    logger = logging.getLogger("lightning.pytorch")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (with_callback("EarlyStopping", "--trainer.callbacks.monitor=val/los"), "val/los"),
        (["--trainer.val_check_interval=50"], "val_check_interval"),
        (["--trainer.limit_train_batches=0.01"], "limit_train_batches"),
        (["--trainer.limit_val_batches=0.001"], "limit_val_batches"),
        (["--trainer.strategy=ddpp"], "ddpp"),
        (["--trainer.strategy=fsdp"], "strategy"),
        (["--trainer.strategy=deepspeed"], "deepspeed"),
        (["--trainer.precision=7"], "precision"),
        (["--trainer.devices=0"], "devices"),
        (["--trainer.accelerator=gpu"], "no GPU here"),
        (["--trainer.accelerator=gpuu"], "gpuu"),
        (["--trainer.gradient_clip_algorithm=most"], "most"),
        (["--trainer.enable_checkpointing=false"], "--trainer.enable_checkpointing false"),
        (["--trainer.barebones=true"], "--trainer.barebones true"),
        (with_callback("StochasticWeightAveraging", "--trainer.callbacks.swa_lrs=-1"), "swa_lrs"),
    ],
)
def test_what_lightning_refuses_is_one_sentence(folder, tiny, refused, words, sentence):
    assert sentence in refused("fit", "--config", tiny, *words)


def test_a_run_without_validation_says_what_that_means(folder, tiny, capsys):
    main(["fit", "--config", tiny, "--trainer.limit_val_batches=0", "--run_id", "r"])
    said = capsys.readouterr().out
    assert "no validation, so no epoch is the best and none is tested" in said
    assert "checkpoints/last.ckpt" in said
