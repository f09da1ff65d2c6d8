"""A stop signal is a stop, whatever it meets: a writer, a data loader, a bare ``except:``."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from bclightning.cli.main import main
from bclightning.data import Digits
from bclightning.runs.callbacks import SeedEachEpoch
from bclightning.runs.checkpoint_io import WholeFileCheckpointIO
from bclightning.runs.interrupt import Interrupted, interruptible, interruption_of
from bclightning.runs.metrics_csv import MetricsTable
from bclightning.runs.record import RunRecord

RUN = Path("results/runs/digits/r")


class StoppedInWrite:
    """A file in whose n-th write a signal arrives."""

    def __init__(self, file, number: int):
        self.file, self.left = file, number

    def write(self, data):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.mark.parametrize("write", range(1, 24, 2))
def test_a_stop_while_a_checkpoint_is_written_is_no_failure(tmp_path, monkeypatch, write):
    real = torch.save
    monkeypatch.setattr(torch, "save", lambda c, file: real(c, StoppedInWrite(file, write)))
    path = tmp_path / "last.ckpt"
    state = {f"w{i}": torch.zeros(5_000) for i in range(4)}
    with pytest.raises(Interrupted), interruptible():
        WholeFileCheckpointIO().save_checkpoint({"state_dict": state}, path)
    assert os.listdir(tmp_path) == []


def stop_and_fail(*_, **__):
    """A signal arrives, and the clean-up that it causes fails."""
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        raise RuntimeError("unexpected pos 64 vs 0")


def swallow_the_stop(*_, **__):
    try:  # noqa: SIM105
        # Lightning notes a SIGTERM itself.
        os.kill(os.getpid(), signal.SIGINT)
    except:  # noqa: E722 - as users write it
        pass


def in_save(patch):
    real = torch.save
    patch.setattr(torch, "save", lambda c, file: real(c, StoppedInWrite(file, 9)))


def in_last_record(patch):
    real = RunRecord.write

    def write(self, path):
        if self.status == "finished":
            os.kill(os.getpid(), signal.SIGTERM)
        real(self, path)

    patch.setattr(RunRecord, "write", write)


STAGES = {
    "save": in_save,
    "batch": lambda patch: patch.setattr(SeedEachEpoch, "on_train_batch_start", stop_and_fail),
    "validation": lambda patch: patch.setattr(SeedEachEpoch, "on_validation_start", stop_and_fail),
    "data": lambda patch: patch.setattr(Digits, "val_dataloader", stop_and_fail),
    "metrics": lambda patch: patch.setattr(MetricsTable, "append", stop_and_fail),
    "tracking": lambda patch: patch.setattr("bclightning.runs.run.start_tracking", stop_and_fail),
    "test": lambda patch: patch.setattr("bclightning.runs.run.evaluate", stop_and_fail),
    "bare except": lambda patch: patch.setattr(
        SeedEachEpoch, "on_train_batch_end", swallow_the_stop
    ),
    "bare except in the test": lambda patch: patch.setattr(
        "bclightning.runs.run.save_first_layer", swallow_the_stop
    ),
    "last record": in_last_record,
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stop_ends_a_run_in_order_at_each_of_its_stages(folder, tiny, capsys, stage):
    words = ["fit", "--config", tiny, "--trainer.max_epochs", "2", "--run_id", "r"]
    if stage == "tracking":
        words += ["--wandb.mode", "offline"]
    with pytest.MonkeyPatch.context() as patch:
        STAGES[stage](patch)
        with pytest.raises(SystemExit) as stopped:
            main(words)
    number = signal.SIGINT if stage.startswith("bare") else signal.SIGTERM
    assert stopped.value.code == 128 + number
    assert "resume with:\nbcl fit --resume results/runs/digits/r" in capsys.readouterr().err
    record = json.loads((RUN / "run.json").read_text())
    assert (record["status"], record["reason"]) == ("interrupted", number.name)
    if stage == "bare except":
        assert len(MetricsTable(RUN / "metrics.csv").rows) == 1
    main(["fit", "--resume", "r", "--wandb.mode", "disabled"])
    assert json.loads((RUN / "run.json").read_text())["status"] == "finished"


def test_an_error_of_its_own_is_no_stop():
    error = RuntimeError("a")
    error.__context__ = ValueError("b")
    error.__context__.__context__ = error
    assert interruption_of(error) is None
    error.__context__.__cause__ = Interrupted(2)
    assert interruption_of(error).exit_code == 130
    with interruptible():
        pass
    with pytest.raises(RuntimeError, match="a"), interruptible():
        raise RuntimeError("a")
