"""Checkpoints: which is the best, and that none is torn."""

import errno
import os
from pathlib import Path

import pytest
import torch
from fake_trainer import fake_trainer, run_epochs
from hypothesis import given
from hypothesis import strategies as st

from bclightning.errors import UserError
from bclightning.runs.checkpoint import RunCheckpoint, WholeFileCheckpointIO
from bclightning.runs.metrics_csv import MetricsTable
from bclightning.storage import DiskFullError


@pytest.mark.parametrize("space", [0, 1_000, 100_000])
def test_a_disk_that_fills_while_a_checkpoint_is_written_loses_nothing(
    tmp_path, monkeypatch, space
):
    """As a real full disk has it: the write fails, and then so does closing torch's archive."""
    writer, path = WholeFileCheckpointIO(), tmp_path / "last.ckpt"
    writer.save_checkpoint({"state_dict": {"w": torch.zeros(4)}}, path)
    before = path.read_bytes()
    real = os.fdopen

    def nearly_full(*arguments, **keywords):
        file = real(*arguments, **keywords)

        def write(data, left=[space]):  # noqa: B006 - what is left, over all writes
            left[0] -= len(data)
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return raw(data)

        raw, file.write = file.write, write
        return file

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", nearly_full)
        with pytest.raises(DiskFullError, match=r"the disk is full: .* older content is intact"):
            writer.save_checkpoint({"state_dict": {"w": torch.zeros(100_000)}}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_a_checkpoint_is_on_the_disk_before_it_takes_the_place_of_the_last(tmp_path, monkeypatch):
    """Content, name, the folder's entry: a loss of power leaves the old one or the new."""
    calls = []
    flush, replace = os.fsync, os.replace

    def flushed(descriptor):
        calls.append("flush")
        flush(descriptor)

    def replaced(source, target):
        calls.append((Path(source).parent, Path(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", replaced)
    path = tmp_path / "last.ckpt"
    WholeFileCheckpointIO().save_checkpoint({"state_dict": {}}, path)
    assert calls == ["flush", (tmp_path, path), "flush"]


@given(st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=1, max_size=6))
def test_the_best_epoch_is_the_last_of_the_best(tmp_path_factory, errors):
    folder = tmp_path_factory.mktemp("run")
    keeper = run_epochs(folder, errors)
    best = max(epoch for epoch, error in enumerate(errors) if error == min(errors))
    assert keeper.best_epoch == best
    assert keeper.best_path.read_text() == f"epoch {best}"
    assert keeper.last_path.read_text() == f"epoch {len(errors) - 1}"


def test_best_is_copied_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def no_links(*paths):
        raise OSError(95, "not supported")

    monkeypatch.setattr("os.link", no_links)
    keeper = run_epochs(tmp_path, [2.0, 1.0, 3.0])
    assert keeper.best_path.read_text() == "epoch 1"


def test_a_metric_that_is_not_logged_is_named(tmp_path):
    keeper = RunCheckpoint(tmp_path, MetricsTable(tmp_path / "m.csv"), monitor="val/other")
    trainer = fake_trainer(0, 1.0)
    keeper.on_validation_end(trainer, None)
    with pytest.raises(UserError, match="val/other, which was not logged"):
        keeper.on_train_epoch_end(trainer, None)


@given(st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=1, max_size=6))
def test_where_more_is_better_the_best_epoch_is_the_last_of_the_highest(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("run")
    keeper = run_epochs(folder, values, mode="max")
    assert keeper.best == max(values)
    assert keeper.best_epoch == max(e for e, value in enumerate(values) if value == max(values))
    assert keeper.best_path.read_text() == f"epoch {keeper.best_epoch}"


def test_its_state_has_one_name_in_checkpoints_whatever_the_class_is_called(tmp_path):
    class Renamed(RunCheckpoint):
        pass

    keeper = Renamed(tmp_path, MetricsTable(tmp_path / "m.csv"))
    assert keeper.state_key == "RunCheckpoint"
