"""Lightning's own options and callbacks do in a run what Lightning says that they do."""

import pytest
from stopped_runs import differences, end_of, same, stop_in_the_second_epoch, unfinished

from bclightning.cli.main import main

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
    runs = folder / "results/runs/table"
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
