"""A falsified record is not reproduced, and every record that is published agrees with itself."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from bclightning.cli.main import main
from bclightning.runs.agreement import disagreements
from bclightning.runs.metrics_csv import MetricsTable
from bclightning.runs.recipes import read_config
from bclightning.runs.record import RunRecord

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests/configs/tiny.yaml"
RUN = Path("results/runs/digits/r")
RECORDS = sorted((ROOT / "results").glob("*/*/run.json"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Where a finished run with an ensemble's test lies, made once."""
    runs = tmp_path_factory.mktemp("trained")
    main(["fit", "--config", str(TINY), "--run_id", "r", "--runs_dir", str(runs)])
    words = ["--eval_weights", "ensemble", "--ensemble_size", "2"]
    main(["test", str(runs / "digits/r"), *words])
    return runs


@pytest.fixture
def recorded(folder, trained, monkeypatch):
    """The folder of a finished run, of a commit that is the present one, without checkpoints."""
    shutil.copytree(trained, "results/runs")
    shutil.rmtree(RUN / "checkpoints")
    commit = {"commit": "a" * 40, "dirty": False}
    monkeypatch.setattr("bclightning.runs.run.git_state", lambda: commit)
    change_record(git=commit)
    return RUN


def change_record(**entries) -> None:
    content = json.loads((RUN / "run.json").read_text())
    (RUN / "run.json").write_text(json.dumps(content | entries))


def change_test(**entries) -> None:
    content = json.loads((RUN / "run.json").read_text())
    change_record(test=[{**entry, **entries} for entry in content["test"]])


def rows() -> list[dict[str, str]]:
    with (RUN / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def write_rows(new: list[dict[str, str]]) -> None:
    with (RUN / "metrics.csv").open("w") as file:
        writer = csv.DictWriter(file, list(new[0]))
        writer.writeheader()
        writer.writerows(new)


def change_setting() -> None:
    settings = json.loads((RUN / "run.json").read_text())["hyperparameters"]
    change_record(hyperparameters=settings | {"model.learning_rate": 0.5})


def change_config(pattern: str, new: str) -> None:
    text = (RUN / "config.yaml").read_text()
    assert re.search(pattern, text)
    (RUN / "config.yaml").write_text(re.sub(pattern, new, text))


def keep_columns(*columns: str) -> None:
    write_rows([{key: row[key] for key in columns} for row in rows()])


def drop_columns(*prefixes: str) -> None:
    write_rows([{k: v for k, v in row.items() if not k.startswith(prefixes)} for row in rows()])


def set_cell(epoch: int, key: str, value: str) -> None:
    new = rows()
    new[epoch][key] = value
    write_rows(new)


FALSIFIED = {
    "best score": lambda: change_record(best_score=0.1),
    "best score and test": lambda: (change_record(best_score=0.1), change_test(value=0.1)),
    "seed": lambda: change_record(seed=7),
    "regularizer": lambda: change_record(regularizer="deterministic"),
    "best epoch": lambda: change_record(best_epoch=0),
    "no best epoch": lambda: change_record(best_epoch=None, best_score=None),
    "settings": change_setting,
    "seed in the configuration": lambda: change_config("seed_everything: 0", "seed_everything: 1"),
    "rate in the configuration": lambda: change_config(
        "learning_rate: 0.01", "learning_rate: 0.02"
    ),
    "only the epochs left": lambda: keep_columns("epoch"),
    "no monitored metric": lambda: drop_columns("val/error"),
    "no losses": lambda: drop_columns("train/", "val/loss"),
    "no statistics of weights": lambda: drop_columns("flip_ratio", "saturation"),
    "split sizes": lambda: change_record(split_sizes={"train": 1, "val": 1, "test": 9999}),
    "sizes": lambda: change_record(binary_weights=1),
    "rows swapped": lambda: write_rows(rows()[::-1]),
    "a later epoch": lambda: set_cell(2, "val/error", "0.01"),
    "a later epoch and its score": lambda: (
        set_cell(0, "val/error", "0.01"),
        change_record(best_epoch=0, best_score=0.01),
    ),
    "epochs": lambda: change_record(epochs=500),
    "monitor": lambda: change_record(monitor="val/loss"),
    "direction": lambda: change_record(monitor_mode="max"),
    "evaluation": lambda: change_record(
        evaluation={"weights": "binary", "batch_norm": "as trained"}
    ),
    "stage": lambda: change_record(stage="final"),
    "arm": lambda: change_record(arm="none"),
    "names": lambda: change_record(run_id="other"),
    "two results of one kind": lambda: change_test(weights="real"),
}


@pytest.mark.parametrize("falsify", FALSIFIED)
def test_a_falsified_record_is_not_reproduced(recorded, capsys, falsify):
    FALSIFIED[falsify]()
    with pytest.raises(SystemExit) as stopped:
        main(["reproduce", str(recorded), "--epochs", "1"])
    assert stopped.value.code == 1
    assert "NOT reproduced" in capsys.readouterr().out


@pytest.mark.parametrize("epochs", [1, 3])
def test_test_results_are_compared_where_they_can_be(recorded, capsys, epochs):
    """With all epochs trained again; else it is said that they are not."""
    words = ["reproduce", str(recorded), "--epochs", str(epochs)]
    main(words)
    said = " ".join(capsys.readouterr().out.split())
    assert ("not compared: nothing" in said) == (epochs == 3)
    assert ("6 test results, which need the run's checkpoint" in said) == (epochs == 1)
    assert ("not compared: 2 later epochs (--epochs 3)" in said) == (epochs == 1)
    change_test(value=0.1)
    if epochs == 1:
        main(words)
    else:
        with pytest.raises(SystemExit):
            main(words)
        assert "NOT reproduced: 6 of" in capsys.readouterr().out


def test_a_checkpoint_is_tested_again(recorded, trained, capsys):
    shutil.copytree(trained / "digits/r/checkpoints", recorded / "checkpoints")
    main(["reproduce", str(recorded), "--epochs", "1"])
    assert "6 test results; not compared: 2 later epochs" in capsys.readouterr().out
    change_test(value=0.1)
    with pytest.raises(SystemExit):
        main(["reproduce", str(recorded), "--epochs", "1"])
    said = capsys.readouterr().out
    assert "NOT reproduced: 6 of 14 values differ" in said
    assert "test/error (ensemble, re-estimated)" in said


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("epoch,val/error\n0,abc\n", "could not convert string to float: 'abc'"),
        ("val/error\n5\n", "a row has the epoch None"),
        ("epoch,val/error\n0.5,5\n", "a row has the epoch '0.5'"),
        ("epoch,val/error\n-1,5\n", "a row has the epoch '-1'"),
        ("epoch,val/error\n,5\n", "a row has the epoch ''"),
        ("epoch,val/error\n0,5,6\n", "more cells than there are columns"),
        ("epoch,val/error\nnan,5\n", "a row has the epoch 'nan'"),
        (b"\xff\xfe", "codec can't decode"),
        ("epoch\n" + "1" * 200_000, "field larger than field limit"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_sentence(recorded, refused, content, sentence):
    content = content.encode() if isinstance(content, str) else content
    (recorded / "metrics.csv").write_bytes(content)
    said = refused("reproduce", str(recorded))
    assert "metrics.csv is not a table of metrics: " in said
    assert sentence in said
    change_record(status="running")
    assert "is not a table of metrics" in refused("fit", "--resume", str(recorded))


def test_a_run_without_metrics_is_not_reproduced(recorded, capsys):
    (recorded / "metrics.csv").unlink()
    with pytest.raises(SystemExit) as stopped:
        main(["reproduce", str(recorded)])
    assert stopped.value.code == 1


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.name)
def test_a_published_record_agrees_with_its_files(path):
    record = RunRecord.read(path)
    table = MetricsTable(path.parent / "metrics.csv").rows
    config = read_config(path.parent / "config.yaml")
    assert disagreements(record, config, table) == []
    record.seed += 1
    assert len(disagreements(record, config, table)) == 1


def test_there_are_published_records():
    assert len(RECORDS) > 50
