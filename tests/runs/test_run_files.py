"""Metrics, checkpoints, statistics and progress of a run, each by itself."""

import errno
import io
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bclightning.errors import UserError
from bclightning.nn import BinaryLinear
from bclightning.runs.checkpoint import RunCheckpoint, WholeFileCheckpointIO
from bclightning.runs.metrics_csv import MetricsTable, shortest
from bclightning.runs.progress import RunProgress
from bclightning.storage import DiskFullError, write_text
from bclightning.training.weight_statistics import WeightStatistics, feature_grid, saturation

numbers = st.floats(allow_nan=False, allow_infinity=False)
rows = st.lists(st.dictionaries(st.sampled_from(["a", "b/c", "d"]), numbers), max_size=5)


@given(rows)
def test_metrics_come_back_with_all_their_digits(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("run") / "metrics.csv"
    table = MetricsTable(path)
    for epoch, row in enumerate(rows):
        table.append(epoch, row)
    again = MetricsTable(path)
    assert again.rows == [{"epoch": epoch, **row} for epoch, row in enumerate(rows)]
    if rows:
        before = path.read_bytes()
        again.append(len(rows) - 1, rows[-1])
        assert path.read_bytes() == before


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_the_shortest_form_is_the_same_single(value):
    short = shortest(value)
    assert np.float32(short) == np.float32(value)
    assert len(str(short)) <= len(str(value))


def test_rows_that_a_checkpoint_does_not_hold_are_cut(tmp_path):
    table = MetricsTable(tmp_path / "metrics.csv")
    for epoch in range(4):
        table.append(epoch, {"x": float(epoch)})
    MetricsTable(table.path).cut_after(1)
    assert [row["epoch"] for row in MetricsTable(table.path).rows] == [0, 1]
    # An epoch that is trained again takes the place of what was there.
    table.append(2, {"x": 9.0})
    assert [row["x"] for row in table.rows] == [0, 1, 9]


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


def fake_trainer(epoch, error):
    def save(path):
        # Replaced, as the run's checkpoints are: best.ckpt may be another name of the old content.
        write_text(path, f"epoch {epoch}")

    return SimpleNamespace(
        current_epoch=epoch,
        max_epochs=9,
        is_global_zero=True,
        callback_metrics={"val/error": torch.tensor(error), "train/loss": torch.tensor(0.5)},
        save_checkpoint=save,
        num_training_batches=10,
    )


def run_epochs(folder, errors):
    keeper = RunCheckpoint(folder, MetricsTable(folder / "metrics.csv"))
    for epoch, error in enumerate(errors):
        trainer = fake_trainer(epoch, error)
        keeper.on_validation_end(trainer, None)
        keeper.on_train_epoch_end(trainer, None)
    return keeper


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


def test_saturation_counts_the_weights_at_the_bounds():
    layer = BinaryLinear(4, 1)
    layer.weight.data = torch.tensor([[1.0, -1.0, 0.999, 0.0]])
    assert saturation(layer) == 0.5


def test_each_feature_is_shown_from_black_to_white_in_its_own_tile():
    weight = torch.arange(24.0).reshape(4, 6)
    grid = feature_grid(weight, (1, 2, 3))
    assert grid.shape == (2 * 3 + 1, 2 * 4 + 1, 3)
    assert grid.dtype == np.uint8
    for top in (1, 4):
        for left in (1, 5):
            tile = grid[top : top + 2, left : left + 3, 0]
            assert tile.min() == 0
            assert tile.max() == 255
            assert (np.diff(tile.flatten().astype(int)) > 0).all()
    assert (grid[0] == 128).all()


def test_colour_kernels_keep_their_channels():
    weight = torch.zeros(1, 3, 2, 2)
    weight[0, 1] = 1
    assert feature_grid(weight, ())[1, 1].tolist() == [0, 255, 0]
    assert feature_grid(torch.zeros(1, 3, 2, 2), ())[1, 1].tolist() == [128] * 3


def test_media_come_every_so_many_epochs():
    with pytest.raises(ValueError, match="counts epochs from 1"):
        WeightStatistics(media_every=0)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_says_epoch_errors_and_time_left(tmp_path, terminal):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=160)
    keeper = run_epochs(tmp_path, [2.0])
    progress = RunProgress(keeper, console)
    progress.on_train_start(fake_trainer(0, 2.0), None)
    progress.on_train_epoch_start(fake_trainer(0, 2.0), None)
    progress.on_train_batch_end(fake_trainer(0, 2.0), None, None, None, 4)
    progress.on_train_epoch_start(fake_trainer(1, 3.5), None)
    progress.on_train_end(fake_trainer(2, 2.0), None)
    said = text.getvalue()
    assert "validation error 3.50 %  (best 2.00 %)" in said
    assert "validation error 2.00 %  (best)" in said
    if not terminal:
        lines = said.splitlines()
        assert [line.split("  ")[0] for line in lines] == ["epoch 1/9", "epoch 2/9"]
        assert all("time left 0:00:00" in line for line in lines)
    else:
        assert "5/10" in said


def test_progress_can_be_turned_off(tmp_path):
    text = io.StringIO()
    progress = RunProgress(run_epochs(tmp_path, [2.0]), Console(file=text))
    progress.disable()
    progress.on_train_start(fake_trainer(0, 2.0), None)
    progress.on_train_end(fake_trainer(1, 2.0), None)
    assert text.getvalue() == ""
