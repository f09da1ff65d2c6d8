"""Damaged, hostile and unloadable checkpoints: one sentence, and never other weights in silence."""

import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bclightning.cli.main import main
from bclightning.errors import UserError
from bclightning.runs.callbacks import SeedEachEpoch
from bclightning.runs.checkpoint_io import WholeFileCheckpointIO, load_checkpoint
from bclightning.runs.loadable import LoadableValues

RUN = Path("results/runs/digits/r")
TINY = Path(__file__).parents[1] / "configs" / "tiny.yaml"


def small_checkpoint(path: Path, **content) -> dict:
    state = {"a": torch.randn(40), "b": torch.randn(5, 5), "c": torch.tensor(3)}
    checkpoint = {"state_dict": state, "epoch": 2, "loops": {"fit_loop": {"x": [1, 2.5]}}}
    WholeFileCheckpointIO().save_checkpoint(checkpoint | content, path)
    return checkpoint


def equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return a == b


def test_no_flipped_bit_loads_as_other_weights(tmp_path):
    path = tmp_path / "x.ckpt"
    saved = small_checkpoint(path)
    content = bytearray(path.read_bytes())
    draws = random.Random(0)
    refused = 0
    for _ in range(500):
        place, bit = draws.randrange(len(content)), 1 << draws.randrange(8)
        content[place] ^= bit
        path.write_bytes(content)
        content[place] ^= bit
        try:
            assert equal(load_checkpoint(path), saved), f"bit {bit} of byte {place}"
        except UserError:
            refused += 1
    # The others are in padding and in dates, which nothing reads.
    assert refused > 100


@pytest.mark.parametrize("part", ["weights", "a number"])
def test_what_is_changed_in_a_checkpoint_is_noticed_by_its_checksum(tmp_path, part):
    path = tmp_path / "x.ckpt"
    saved = small_checkpoint(path)
    old = saved["state_dict"]["a"].numpy().tobytes()[:8]
    old, new = (old, bytes(8)) if part == "weights" else (b"K\x01G@\x04", b"K\x01G@\x08")
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new))
    with pytest.raises(UserError, match="is damaged"):
        load_checkpoint(path)


@pytest.mark.parametrize("way", ["older format", "checksums turned off"])
def test_a_checkpoint_without_checksums_is_still_loaded(tmp_path, way):
    checkpoint, path = {"state_dict": {"a": torch.ones(3)}}, tmp_path / "x.ckpt"
    if way == "older format":
        torch.save(checkpoint, path, _use_new_zipfile_serialization=False)
    else:
        torch.serialization.set_crc32_options(False)
        try:
            torch.save(checkpoint, path)
        finally:
            torch.serialization.set_crc32_options(True)
    assert equal(load_checkpoint(path), checkpoint)


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    import zipfile

    path = tmp_path / "x.ckpt"
    small_checkpoint(path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "bomb.ckpt", "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry), zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        load_checkpoint(tmp_path / "bomb.ckpt")


class Own:
    pass


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"callbacks": {"Best": {"score": np.float64(0.5)}}}, "callbacks['Best']['score']"),
        ({"callbacks": {"Best": {"scores": [1.0, np.float32(2)]}}}, "['scores'][1]"),
        ({"callbacks": {"Best": {np.int64(3): 1}}}, "callbacks['Best'][np.int64(3)]"),
        ({"hyper_parameters": {"net": nn.Linear(1, 1)}}, "hyper_parameters['net']"),
        ({"callbacks": {"Best": {"f": lambda: 0}}}, "callbacks['Best']['f']"),
        ({"callbacks": {"Best": {"own": Own()}}}, "test_checkpoint_damage.Own"),
        ({"callbacks": {"Best": {"path": Path("x")}}}, "callbacks['Best']['path']"),
    ],
)
def test_what_could_not_be_loaded_again_is_named_before_it_is_saved(tmp_path, content, place):
    path = tmp_path / "last.ckpt"
    small_checkpoint(path)
    before = path.read_bytes()
    with pytest.raises(UserError) as refused:
        WholeFileCheckpointIO().save_checkpoint({"state_dict": {}} | content, path)
    assert place in str(refused.value)
    assert path.read_bytes() == before


def test_whatever_passes_can_be_loaded(tmp_path):
    shared = [torch.ones(2)]
    shared.append(shared)
    unusual = {
        "dtype": torch.float16,
        "size": torch.Size([1]),
        "device": torch.device("cpu"),
        "set": {1, 2},
        "complex": 1j,
        "parameter": nn.Parameter(torch.ones(2)),
        "shared": shared,
        "bytes": b"x",
    }
    LoadableValues().require({"callbacks": unusual})
    small_checkpoint(tmp_path / "x.ckpt", callbacks=unusual)
    load_checkpoint(tmp_path / "x.ckpt")


CALLBACK = """
import numpy
from lightning.pytorch import Callback

class KeepsNumpy(Callback):
    def state_dict(self):
        return {"best": numpy.float64(1)}
"""


def test_a_callback_whose_state_could_not_be_loaded_ends_the_run_at_its_first_epoch(
    folder, tiny, refused, monkeypatch
):
    (folder / "keeps_numpy.py").write_text(CALLBACK)
    monkeypatch.syspath_prepend(folder)
    epochs = []
    monkeypatch.setattr(SeedEachEpoch, "on_train_epoch_end", lambda *_: epochs.append(1))
    own = ["--trainer.callbacks+", "keeps_numpy.KeepsNumpy"]
    said = refused("fit", "--config", tiny, "--run_id", "r", *own)
    assert "callbacks['KeepsNumpy']['best'] is of the type numpy.float64" in said
    assert epochs == [1]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Where a run lies that was stopped in its second epoch, whose first is not its best."""
    runs = tmp_path_factory.mktemp("stopped")

    def stop(self, trainer, *_):
        if trainer.current_epoch == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SeedEachEpoch, "on_train_epoch_end", stop)
        with pytest.raises(SystemExit):
            main(["fit", "--config", str(TINY), "--run_id", "r", "--runs_dir", str(runs)])
    return runs


@pytest.fixture
def run(folder, stopped):
    shutil.copytree(stopped, "results/runs")
    return RUN


def changed(content: dict, key: str, value) -> dict:
    *path, last = key.split(".")
    inner = content
    for name in path:
        inner = inner[name]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return content


HOSTILE = [
    ("epoch", "x"),
    ("epoch", ...),
    ("global_step", None),
    ("state_dict", 3),
    ("state_dict", {}),
    ("state_dict", {1: torch.ones(2)}),
    ("state_dict", {"network.output.linear.weight": "x"}),
    ("loops", ...),
    ("loops", {}),
    ("loops", {"fit_loop": 3}),
    ("callbacks", 3),
    ("callbacks", {}),
    ("callbacks.RunCheckpoint", {}),
    ("callbacks.RunCheckpoint.best", "x"),
    ("callbacks.RunCheckpoint.last_epoch", None),
    ("optimizer_states", ...),
    ("optimizer_states", [3]),
    ("optimizer_states", [{}]),
    ("lr_schedulers", [3]),
    ("lr_schedulers", 3),
    ("pytorch-lightning_version", 3),
]


@pytest.mark.parametrize(("key", "value"), HOSTILE)
def test_a_hostile_checkpoint_is_one_sentence_when_a_run_is_resumed(run, refused, key, value):
    last = run / "checkpoints/last.ckpt"
    content = changed(torch.load(last, weights_only=True), key, value)
    torch.save(content, last)
    assert "cannot be resumed" in refused("fit", "--resume", str(run))


@pytest.mark.parametrize("content", [3, [], {"a": torch.ones(1)}])
def test_what_is_no_checkpoint_is_one_sentence(run, refused, content):
    for name in ("last", "best"):
        (run / f"checkpoints/{name}.ckpt").unlink()
        torch.save(content, run / f"checkpoints/{name}.ckpt")
    assert "cannot be resumed" in refused("fit", "--resume", str(run))
    assert "best.ckpt" in refused("test", str(run))


def test_a_damaged_last_checkpoint_says_how_to_resume_from_the_best(run, refused):
    checkpoints = run / "checkpoints"
    first = checkpoints / "best.ckpt"
    other = torch.load(first, weights_only=True)
    other["callbacks"]["RunCheckpoint"] |= {"best_epoch": 0, "last_epoch": 0}
    first.unlink()
    torch.save(other, first)
    content = bytearray((checkpoints / "last.ckpt").read_bytes())
    content[len(content) // 2] ^= 4
    (checkpoints / "last.ckpt").write_bytes(content)
    said = refused("fit", "--resume", str(run))
    assert "copy best.ckpt over last.ckpt to resume from the best epoch" in said


def test_a_best_checkpoint_that_is_gone_is_not_a_run_without_results(run, refused):
    last, best = (run / f"checkpoints/{name}.ckpt" for name in ("last", "best"))
    content = torch.load(last, weights_only=True)
    torch.save(changed(content, "callbacks.RunCheckpoint.best_epoch", 0), last)
    best.unlink()
    assert "there is no results/runs/digits/r/checkpoints/best.ckpt" in refused(
        "fit", "--resume", str(run)
    )


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_notebook", "ddp_spawn"])
def test_a_run_in_processes_of_its_own_ends_with_its_results(folder, tiny, strategy):
    import json
    import subprocess
    import sys

    words = ["--trainer.strategy", strategy, "--trainer.devices", "2", "--run_id", "r"]
    command = [sys.executable, "-m", "bclightning", "fit", "--config", tiny, *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    record = json.loads((RUN / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["test"]
