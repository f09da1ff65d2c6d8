"""A recorded run, again: the same bits here, and a refusal where it is not the same run."""

import csv
import json
import os
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from bclightning.cli.main import main
from bclightning.runs.callbacks import SeedEachEpoch
from bclightning.runs.record import RunRecord
from bclightning.runs.reproduce import Difference, what_changed

RUN = Path("results/runs/digits/r")


TINY = Path(__file__).parents[1] / "configs" / "tiny.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Where a finished run lies, made once."""
    runs = tmp_path_factory.mktemp("trained")
    main(["fit", "--config", str(TINY), "--run_id", "r", "--runs_dir", str(runs)])
    return runs


@pytest.fixture
def recorded(folder, trained, monkeypatch):
    """The folder of a finished run, of a commit that is the present one."""
    shutil.copytree(trained, "results/runs")
    commit = {"commit": "a" * 40, "dirty": False}
    monkeypatch.setattr("bclightning.runs.run.git_state", lambda: commit)
    change_record(git=commit)
    return RUN


def change_metric(metric: str, epoch: int, factor: float) -> None:
    path = RUN / "metrics.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    rows[epoch][metric] = str(float(rows[epoch][metric]) * factor)
    with path.open("w") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def change_record(**entries) -> None:
    content = json.loads((RUN / "run.json").read_text())
    (RUN / "run.json").write_text(json.dumps(content | entries))


def failed(*words: str) -> bool:
    with pytest.raises(SystemExit) as stopped:
        main(["reproduce", *words])
    return stopped.value.code == 1


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_the_first_epochs_are_the_same_to_the_last_bit(recorded, capsys, epochs):
    before = {path: path.read_bytes() for path in recorded.rglob("*") if path.is_file()}
    capsys.readouterr()
    main(["reproduce", str(recorded), "--epochs", str(epochs)])
    said = capsys.readouterr()
    # Four metrics, and two of the weights of each of the network's two layers.
    assert f"bit for bit the same: {8 * epochs} metrics of {epochs} epochs, and 4 test" in said.out
    assert f"epoch {epochs}/{epochs}" in said.err
    assert "epoch 4" not in said.err
    assert {path: path.read_bytes() for path in before} == before
    assert not list(Path().glob("bcl-*"))


def test_how_many_digits_a_record_writes_is_no_difference(recorded, capsys):
    with (recorded / "metrics.csv").open() as file:
        errors = [float(row["val/error"]) for row in csv.DictReader(file)]
    # 300 images: thirds of a percent, which no binary fraction is.
    wide = [float(np.float32(error)) for error in errors]
    assert any(a != b for a, b in zip(errors, wide, strict=True))
    for epoch, (error, same) in enumerate(zip(errors, wide, strict=True)):
        change_metric("val/error", epoch, same / error)
    main(["reproduce", str(recorded)])
    assert "bit for bit the same" in capsys.readouterr().out


def test_on_the_same_machine_any_difference_is_one(recorded, capsys):
    change_metric("val/error", 1, 1 + 1e-6)
    main(["reproduce", str(recorded), "--epochs", "1"])
    assert failed(str(recorded))
    assert "NOT reproduced: 1 of 20 values differ, though machine" in capsys.readouterr().out


def test_elsewhere_a_small_difference_is_within_the_band_and_a_large_one_is_not(recorded, capsys):
    machine = RunRecord.read(recorded / "run.json").machine
    change_record(machine={**machine, "name": "another processor"})
    change_metric("train/loss", 0, 1.1)
    main(["reproduce", str(recorded)])
    said = capsys.readouterr().out
    assert "not as recorded: name another processor, now" in said
    assert "within the band" in said
    assert "not bit for bit: 1 of 20 differ" in said
    change_metric("train/loss", 0, 1.1)
    assert failed(str(recorded))
    assert "NOT reproduced: outside the band" in capsys.readouterr().out


def test_another_seed_is_not_the_same_run(recorded, capsys):
    config = recorded / "config.yaml"
    config.write_text(re.sub("seed_everything: 0", "seed_everything: 1", config.read_text()))
    assert failed(str(recorded))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "name a recorded run: bcl reproduce RUN"),
        (["nothere"], "there is no run 'nothere'"),
        (["r", "--epochs", "0"], "--epochs is 1 to 3"),
        (["r", "--epochs", "4"], "--epochs is 1 to 3"),
        (["r", "--model.learning_rate", "1"], "--model.learning_rate would make it another run"),
    ],
)
def test_a_mistake_is_one_sentence(recorded, refused, words, sentence):
    assert sentence in refused("reproduce", *words)


def test_ctrl_c_ends_it_without_a_word_of_a_folder_that_is_gone(recorded, capsys, monkeypatch):
    monkeypatch.setattr(
        SeedEachEpoch, "on_train_epoch_end", lambda *_: os.kill(os.getpid(), signal.SIGINT)
    )
    with pytest.raises(SystemExit) as stopped:
        main(["reproduce", str(recorded)])
    assert stopped.value.code == 130
    said = capsys.readouterr().err
    assert "--resume" not in said
    assert "Traceback" not in said


def test_other_data_is_refused(recorded, refused):
    change_record(checksums={"train": "0"})
    assert "the data files are not those of the record" in refused("reproduce", str(recorded))


def test_the_band_and_what_may_explain_a_difference():
    assert Difference(0, "val/error", 4.0, 4.9).within_band
    assert not Difference(0, "val/error", 4.0, 5.1).within_band
    assert Difference(0, "flip_ratio/a", 4.0, 9.0).within_band
    assert not Difference(0, "flip_ratio/a", 4.0, None).within_band
    records = [RunRecord("r", "e", "none", "d", 0, git={"commit": c, "dirty": False}) for c in "ab"]
    assert what_changed(*records) == ["commit a, now b"]
    assert what_changed(records[0], records[0]) == []
    dirty = RunRecord("r", "e", "none", "d", 0, git={"commit": "a", "dirty": True})
    assert what_changed(records[0], dirty) == ["changes that were not committed"]


def test_random_numbers_are_derived_as_the_record_says(recorded, capsys):
    """By another version of the seeds another run comes out: records of format 1 keep theirs."""
    main(["reproduce", str(recorded)])
    change_record(seeding=1)
    assert failed(str(recorded))
    content = json.loads((RUN / "run.json").read_text())
    del content["seeding"]
    (RUN / "run.json").write_text(json.dumps({**content, "format": 1}))
    assert RunRecord.read(RUN / "run.json").seeding == 1
    assert failed(str(recorded))
