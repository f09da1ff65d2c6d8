"""Runs that are stopped, and whether what they come to is what an uninterrupted one comes to."""

import json
import os
import signal

import pytest
import torch

from bclightning.cli.main import main
from bclightning.runs.callbacks import SeedEachEpoch


def end_of(run) -> dict:
    """What must be equal: weights, optimizer, schedule, metrics, best epoch, test errors."""
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    record = json.loads((run / "run.json").read_text())
    return {
        "weights": last["state_dict"],
        "best weights": best["state_dict"],
        "optimizer": last["optimizer_states"],
        "schedule": last["lr_schedulers"],
        "step": (last["epoch"], last["global_step"], best["epoch"]),
        "metrics": (run / "metrics.csv").read_bytes(),
        "results": [record[key] for key in ("best_epoch", "best_score", "test", "status")],
    }


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def differences(run, whole) -> list[str]:
    ours, theirs = end_of(run), end_of(whole)
    return [key for key in ours if not same(ours[key], theirs[key])]


def unfinished(run) -> None:
    """Let a run's record be what a kill leaves."""
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "status": "running", "test": []}))


def stop_in_the_second_epoch(*words) -> None:
    """Run a command line that is asked to stop at the end of an epoch, before it is kept."""
    ends = []

    def stop(self, *_):
        ends.append(1)
        if len(ends) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SeedEachEpoch, "on_train_epoch_end", stop)
        with pytest.raises(SystemExit):
            main(list(words))
