"""What a worker answers when a trial does not end well."""

import errno

import pytest

from bclightning.errors import DataError, MachineError, UserError
from bclightning.experiments.sweep import worker
from bclightning.experiments.sweep.messages import Failed, Stopped, Task


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), Stopped),
        (MachineError("results/x cannot be written: Read-only file system"), Stopped),
        (DataError("data/x is missing"), Stopped),
        (OSError(errno.ENOENT, "No such file"), Failed),
        (UserError("no Linear or Conv2d to convert"), Failed),
        (ZeroDivisionError(), Failed),
    ],
)
def test_what_the_machine_is_to_blame_for_fails_no_trial(monkeypatch, tmp_path, error, answer):
    def fail(*_):
        raise error

    monkeypatch.setattr(worker, "fit", fail)
    task = Task(("--config", "x"), str(tmp_path / "run"), "k0", wait=False)
    assert type(worker._answer(task, None, worker.LoadedData())) is answer
