"""What a worker answers when a trial does not end well."""

import errno
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from fake_trainer import fake_trainer
from hypothesis import given
from hypothesis import strategies as st

from bclightning.errors import DataError, MachineError, UserError
from bclightning.runs.checkpoint import RunCheckpoint
from bclightning.runs.folder import RunInUseError
from bclightning.runs.interrupt import Interrupted
from bclightning.runs.metrics_csv import MetricsTable
from bclightning.sweep import worker
from bclightning.sweep.messages import Busy, Epoch, Failed, RunRequest, Stopped
from bclightning.sweep.worker import EpochReports, gpu_of


@given(st.integers(0, 40), st.integers(2, 8), st.booleans())
def test_workers_share_the_gpus_out(worker, count, named):
    names = [f"GPU-{device}" for device in range(count)]
    visible = ",".join(names) if named else None
    own = [gpu_of(number, visible, count) for number in range(worker, worker + count)]
    assert sorted(own) == sorted(names if named else map(str, range(count)))
    assert gpu_of(worker + count, visible, count) == own[0]


def test_one_gpu_or_none_is_left_as_it_is():
    assert gpu_of(3, None, 0) is gpu_of(3, None, 1) is gpu_of(3, "2", 1) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_a_trial_is_told_the_very_value_that_its_record_will_have(tmp_path, dtype):
    sent = []
    trainer = fake_trainer(0, torch.tensor(8 / 3, dtype=dtype))
    reports = EpochReports(SimpleNamespace(send=sent.append), "val/error", wait=False)
    reports.on_validation_end(trainer, None)
    keeper = RunCheckpoint(tmp_path, MetricsTable(tmp_path / "metrics.csv"))
    keeper.on_validation_end(trainer, None)
    keeper.on_train_epoch_end(trainer, None)
    assert sent == [Epoch(1, keeper.best)]


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), Stopped),
        (MachineError("results/x cannot be written: Read-only file system"), Stopped),
        (DataError("data/x is missing"), Stopped),
        (Interrupted(signal.SIGTERM), Stopped),
        (RunInUseError("the run x is being trained by another process"), Busy),
        (OSError(errno.ENOENT, "No such file"), Failed),
        (UserError("no Linear or Conv2d to convert"), Failed),
        (ZeroDivisionError(), Failed),
    ],
)
def test_what_the_machine_is_to_blame_for_fails_no_trial(monkeypatch, tmp_path, error, answer):
    def fail(*_):
        raise error

    monkeypatch.setattr(worker, "_train", fail)
    request = RunRequest({}, {}, str(tmp_path / "run"), "k0", "val/error", wait=False)
    assert type(worker._answer(request, None, worker.SharedData())) is answer


def test_a_run_that_another_process_begins_meanwhile_is_left_to_it(monkeypatch, tmp_path, tiny):
    """As two machines that share a folder do where one of them slept; the trial is not lost."""
    run = tmp_path / "digits" / "r"
    train = worker._train

    def begun(*arguments):
        run.mkdir(parents=True)
        (run / "config.yaml").write_text("{}")
        return train(*arguments)

    monkeypatch.setattr(worker, "_train", begun)
    options = {"runs_dir": str(tmp_path), "experiment": "digits", "run_id": "r"}
    recipe = yaml.safe_load(Path(tiny).read_text())
    request = RunRequest(recipe, options, str(run), "k0", "val/error", wait=False)
    answer = worker._answer(request, None, worker.SharedData())
    assert isinstance(answer, Busy), answer


@pytest.mark.parametrize("kind", [RuntimeError, OSError, UserError])
def test_a_signal_in_the_middle_of_a_write_fails_no_trial(monkeypatch, tmp_path, kind):
    """torch's writer raises an error of its own while the one of the signal passes through it."""

    def fail(*_):
        try:
            try:
                raise Interrupted(signal.SIGTERM)
            finally:
                raise kind("unexpected pos 18540480 vs 18540372")
        except kind as error:
            raise RuntimeError("best.ckpt cannot be written") from error

    monkeypatch.setattr(worker, "_train", fail)
    request = RunRequest({}, {}, str(tmp_path / "run"), "k0", "val/error", wait=False)
    assert worker._answer(request, None, worker.SharedData()) == Stopped()
