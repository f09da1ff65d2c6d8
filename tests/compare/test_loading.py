"""Runs as a list of records, and as a data frame."""

from dataclasses import replace

import pytest

from bclightning.compare.loading import RunList, load_runs
from bclightning.errors import UserError
from bclightning.runs.record import RunRecord

BASE = RunRecord(
    run_id="a",
    experiment="e",
    regularizer="none",
    data="digits",
    seed=1,
    status="finished",
    best_epoch=4,
    best_score=2.5,
    evaluation={"weights": "real", "batch_norm": "as trained"},
    test=[{"weights": "real", "batch_norm": "as trained", "value": 3.5}],
    hyperparameters={"model.learning_rate": 0.1},
)


@pytest.fixture
def runs(folder):
    """Two runs of an experiment, of which one has not finished, and one of another."""
    records = [
        BASE,
        replace(
            BASE,
            run_id="b",
            arm="mine",
            status="failed",
            best_score=None,
            test=[],
            hyperparameters={"data.batch_size": 5},
        ),
        replace(BASE, run_id="c", experiment="other"),
    ]
    for record in records:
        path = folder / "results" / "runs" / record.experiment / record.run_id
        path.mkdir(parents=True)
        (path / "config.yaml").write_text("{}")
        record.write(path / "run.json")
    return folder / "results" / "runs"


def test_runs_are_loaded_by_folder_id_and_sweep(folder, runs):
    (folder / "e.yaml").write_text("recipe: digits.yaml\nmethods: [none]\n")

    def ids(*paths, **more):
        return [run.run_id for run in load_runs(*paths, **more)]

    # All runs, as the folder has them: what is compared is for the comparison to say.
    assert ids(runs / "e") == ids("results/runs/e") == ids("e.yaml") == ["a", "b"]
    assert ids("c") == ids(runs / "other" / "c") == ["c"]
    assert ids("c", runs / "e", "a") == ["c", "a", "b"]
    (folder / "results").rename(folder / "moved")
    assert ids("c", runs_dir=folder / "moved" / "runs") == ["c"]
    with pytest.raises(UserError, match="there is no run 'nothing'"):
        load_runs("nothing")
    with pytest.raises(TypeError):
        load_runs()


def test_a_list_of_runs_is_a_list_of_their_records(runs):
    loaded = load_runs(runs / "e")
    assert isinstance(loaded, RunList)
    assert loaded == [RunRecord.read(runs / "e" / name / "run.json") for name in "ab"]
    assert loaded[0] == BASE


def test_a_data_frame_has_a_row_a_run_and_a_column_a_hyperparameter(runs, pandas):
    frame = load_runs(runs / "e").to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.columns == [
        *("run_id", "experiment", "arm", "regularizer", "data", "seed", "status", "stage"),
        *("monitor", "best_epoch", "best_score", "test_metric", "test_value", "train_seconds"),
        *("model.learning_rate", "data.batch_size"),
    ]
    assert frame["run_id"] == ["a", "b"]
    assert frame["arm"] == ["none", "mine"]
    assert frame["monitor"] == ["val/error"] * 2
    assert frame["best_score"] == [2.5, None]
    assert frame["test_value"] == [3.5, None]
    assert frame["model.learning_rate"] == [0.1, None]
    assert frame["data.batch_size"] == [None, 5]
    empty = RunList().to_dataframe()
    assert empty.rows == []
    assert empty.columns[:2] == ["run_id", "experiment"]


def test_without_pandas_the_error_says_what_to_install(no_pandas):
    with pytest.raises(UserError, match=r"^to_dataframe needs pandas: pip install pandas$"):
        RunList([BASE]).to_dataframe()
