"""A run that is stopped anywhere goes on to the same end, to the bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from stopped_runs import differences, stop_in_the_second_epoch, unfinished

from bclightning.cli.main import main
from bclightning.runs.callbacks import SeedEachEpoch
from bclightning.runs.folder import RunFolder
from bclightning.runs.interrupt import Interrupted


@pytest.mark.parametrize("method", ["stochastic", "dropout"])
@pytest.mark.parametrize(
    ("hook", "calls"),
    [
        ("on_train_batch_end", 3),  # in the first epoch: no checkpoint yet
        ("on_train_batch_end", 9),
        ("on_validation_start", 2),
        ("on_train_epoch_end", 2),
    ],
)
def test_a_run_stopped_in_order_goes_on_to_the_same_end(folder, tiny, method, hook, calls):
    words = ["fit", "--config", tiny, "--model.network.regularizer", method]
    main([*words, "--run_id", "whole"])
    runs = folder / "results" / "runs" / "digits"
    with pytest.MonkeyPatch.context() as patch:
        left = [calls]

        def stop(self, *arguments):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGTERM)

        patch.setattr(SeedEachEpoch, hook, stop)
        with pytest.raises(SystemExit) as stopped:
            main([*words, "--run_id", "stopped"])
    assert stopped.value.code == 143
    assert json.loads((runs / "stopped/run.json").read_text())["status"] == "interrupted"
    main(["fit", "--resume", "stopped"])
    assert differences(runs / "stopped", runs / "whole") == []


def test_ctrl_c_ends_in_order_too(folder, tiny, monkeypatch, capsys):
    monkeypatch.setattr(
        SeedEachEpoch, "on_train_epoch_end", lambda *_: os.kill(os.getpid(), signal.SIGINT)
    )
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", tiny, "--run_id", "r"])
    assert stopped.value.code == 130
    assert "resume with:\nbcl fit --resume results/runs/digits/r" in capsys.readouterr().err


@pytest.mark.parametrize("moment", ["before metrics", "before last", "before best", "testing"])
def test_a_kill_between_any_two_writes_of_an_epoch_loses_nothing(folder, tiny, moment):
    """The process vanishes: no handler runs, no record is written."""
    main(["fit", "--config", tiny, "--run_id", "whole"])
    runs = folder / "results" / "runs" / "digits"

    class Vanished(BaseException):
        pass

    def vanish(*arguments, **keywords):
        raise Vanished

    targets = {
        "before metrics": ("bclightning.runs.metrics_csv.MetricsTable.append", 2),
        "before last": ("bclightning.runs.checkpoint.WholeFileCheckpointIO.save_checkpoint", 2),
        "before best": ("bclightning.runs.checkpoint.RunCheckpoint._keep_as_best", 1),
        "testing": ("bclightning.runs.run.evaluate", 1),
    }
    target, at = targets[moment]
    owner, _, name = target.rpartition(".")
    with pytest.MonkeyPatch.context() as patch:
        import importlib

        module, _, klass = owner.rpartition(".")
        try:
            holder = importlib.import_module(owner)
        except ModuleNotFoundError:
            holder = getattr(importlib.import_module(module), klass)
        real = getattr(holder, name)
        calls = [0]

        def maybe(*arguments, **keywords):
            calls[0] += 1
            return vanish() if calls[0] >= at else real(*arguments, **keywords)

        patch.setattr(holder, name, maybe)
        patch.setattr("bclightning.runs.run._Run._end", lambda *_: None)
        with pytest.raises(Vanished):
            main(["fit", "--config", tiny, "--run_id", "killed"])
    main(["fit", "--resume", "killed"])
    assert differences(runs / "killed", runs / "whole") == []


def test_without_seeds_of_their_own_epochs_would_differ_after_a_stop(folder, tiny, monkeypatch):
    """The negative control: take the defence away, and the end is another one."""
    monkeypatch.setattr(SeedEachEpoch, "_seed", lambda *_: None)
    main(["fit", "--config", tiny, "--run_id", "whole"])
    runs = folder / "results" / "runs" / "digits"
    stop_in_the_second_epoch("fit", "--config", tiny, "--run_id", "stopped")
    main(["fit", "--resume", "stopped"])
    assert "weights" in differences(runs / "stopped", runs / "whole")


OWN_DATA = """
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset


class Own(LightningDataModule):
    def loader(self, images, shuffle):
        draws = torch.Generator().manual_seed(images)
        data = TensorDataset(
            torch.rand(images, 64, generator=draws), torch.arange(images) % 10
        )
        return DataLoader(data, batch_size=20, shuffle=shuffle)

    def train_dataloader(self):
        return self.loader(200, shuffle=True)

    def val_dataloader(self):
        return self.loader(100, shuffle=False)

    test_dataloader = val_dataloader
"""


@pytest.mark.parametrize("method", ["dropout", "deterministic"])
def test_a_users_own_shuffled_loader_goes_on_in_the_same_order(folder, tiny, method, monkeypatch):
    """Such a loader draws its order from torch's own generator, before the epoch begins."""
    (folder / "own_order.py").write_text(OWN_DATA)
    monkeypatch.syspath_prepend(folder)
    words = ["fit", "--config", tiny, "--data", "own_order.Own", "--experiment", "own"]
    words += ["--model.network.regularizer", method]
    main([*words, "--run_id", "whole"])
    runs = folder / "results" / "runs" / "own"
    stop_in_the_second_epoch(*words, "--run_id", "stopped")
    main(["fit", "--resume", str(runs / "stopped")])
    assert differences(runs / "stopped", runs / "whole") == []


def test_a_finished_run_is_said_to_be_finished_and_stays_as_it_is(
    folder, tiny, capsys, monkeypatch
):
    main(["fit", "--config", tiny, "--run_id", "r"])
    main(["test", "--run", "r", "--eval-weights", "ensemble", "--ensemble-size", "2"])
    run = folder / "results/runs/digits/r"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    monkeypatch.setattr("bclightning.runs.run.git_state", lambda: {"commit": "other"})
    capsys.readouterr()
    main(["fit", "--resume", "r"])
    assert "the run results/runs/digits/r is finished" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("epochs", [0, 1])
def test_the_file_of_a_warm_start_is_needed_in_the_first_epoch_alone(folder, tiny, refused, epochs):
    main(["fit", "--config", tiny, "--run_id", "first"])
    runs = folder / "results/runs/digits"
    warm = runs / "first/checkpoints/best.ckpt"
    words = ["fit", "--config", tiny, "--warm_start", str(warm), "--run_id"]
    main([*words, "whole"])

    def stop(self, trainer, *_):
        if trainer.current_epoch == epochs:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SeedEachEpoch, "on_validation_start", stop)
        with pytest.raises(SystemExit):
            main([*words, "stopped"])
    away = warm.rename(folder / "away.ckpt")
    if not epochs:
        assert f"there is no checkpoint {warm}" in refused("fit", "--resume", "stopped")
        away.rename(warm)
    main(["fit", "--resume", "stopped"])
    assert differences(runs / "stopped", runs / "whole") == []


def test_a_record_knows_what_made_each_part_of_its_run(folder, tiny, monkeypatch):
    """The first part's code stays the run's; a later one's is noted where it is another."""
    codes = iter([{"commit": name, "dirty": False} for name in "abba"])
    with monkeypatch.context() as patch:
        patch.setattr("bclightning.runs.run.git_state", lambda: next(codes))
        patch.setattr(
            SeedEachEpoch, "on_train_epoch_end", lambda *_: os.kill(os.getpid(), signal.SIGTERM)
        )
        with pytest.raises(SystemExit):
            main(["fit", "--config", tiny, "--run_id", "r"])
        for _ in range(2):
            with pytest.raises(SystemExit):
                main(["fit", "--resume", "r"])
        patch.undo()
        patch.setattr("bclightning.runs.run.git_state", lambda: next(codes))
        main(["fit", "--resume", "r"])
    record = json.loads((folder / "results/runs/digits/r/run.json").read_text())
    assert (record["status"], record["git"]) == ("finished", {"commit": "a", "dirty": False})
    assert [part["git"]["commit"] for part in record["parts"]] == ["b", "a"]
    assert all(part["machine"] == record["machine"] for part in record["parts"])
    assert record["started"] <= record["parts"][0]["started"] <= record["parts"][1]["started"]


def test_a_run_that_was_killed_before_it_had_a_configuration_begins_anew(folder, tiny, refused):
    run = folder / "results/runs/digits/r"
    (run / "checkpoints").mkdir(parents=True)
    main(["fit", "--config", tiny, "--run_id", "r"])
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert "exists" in refused("fit", "--config", tiny, "--run_id", "r")


def test_a_run_is_trained_by_one_process_at_a_time(folder, tiny, refused, monkeypatch):
    main(["fit", "--config", tiny, "--run_id", "r"])
    record = folder / "results/runs/digits/r/run.json"
    record.write_text(record.read_text().replace('"finished"', '"interrupted"'))
    monkeypatch.setattr("bclightning.runs.folder.LOCK_TIMEOUT_SECONDS", 0.1)
    with RunFolder(record.parent).lock():
        assert "is being trained by another process" in refused("fit", "--resume", "r")
    main(["fit", "--resume", "r"])


def test_a_torn_checkpoint_is_never_taken_for_the_last_one(folder, tiny, monkeypatch):
    main(["fit", "--config", tiny, "--run_id", "r"])
    run = folder / "results/runs/digits/r"
    # What a kill in the middle of a write leaves is a temporary file, which is swept up.
    (run / "checkpoints" / ".last.ckpt.abc.part").write_bytes(b"torn")
    unfinished(run)
    main(["fit", "--resume", "r"])
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_a_full_disk_keeps_the_older_checkpoint_and_says_so(folder, tiny, refused, monkeypatch):
    real, calls = torch.save, []

    def full(checkpoint, file):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(checkpoint, file)

    main(["fit", "--config", tiny, "--run_id", "whole"])
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        said = refused("fit", "--config", tiny, "--run_id", "r")
    assert "the disk is full" in said
    runs = folder / "results/runs/digits"
    last = torch.load(runs / "r/checkpoints/last.ckpt", weights_only=True)
    assert last["epoch"] == 0
    assert json.loads((runs / "r/run.json").read_text())["status"] == "failed"
    main(["fit", "--resume", "r"])
    assert differences(runs / "r", runs / "whole") == []


def test_interrupted_says_which_signal():
    assert (Interrupted(15).exit_code, Interrupted(15).signal_name) == (143, "SIGTERM")
    assert (Interrupted(2).exit_code, Interrupted(2).signal_name) == (130, "SIGINT")


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(folder, tiny):
    """Ten processes ended by SIGKILL, SIGTERM and Ctrl-C while they train; then one to the end."""
    epochs = ["--trainer.max_epochs", "60"]
    command = [sys.executable, "-m", "bclightning", "fit"]
    fresh = ["--config", tiny, *epochs, "--run_id", "killed"]
    main(["fit", "--config", tiny, *epochs, "--run_id", "whole"])
    runs = folder / "results" / "runs" / "digits"
    rng = random.Random(0)
    ends = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
    for kill in range(10):
        words = ["--resume", "killed"] if (runs / "killed").exists() else fresh
        process = subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True)
        # Wait for the first finished epoch, and then a random part of the few that follow.
        for line in process.stderr:
            if line.startswith("epoch"):
                break
        time.sleep(rng.uniform(0, 0.08))
        number = rng.choice(list(ends)) if kill else signal.SIGKILL
        process.send_signal(number)
        process.stderr.read()
        process.stderr.close()
        code = process.wait()
        last = torch.load(runs / "killed/checkpoints/last.ckpt", weights_only=True)
        assert code == ends[number], f"kill {kill} came after the end, at epoch {last['epoch']}"
    assert last["epoch"] < 59
    main(["fit", "--resume", "killed"])
    assert differences(runs / "killed", runs / "whole") == []
