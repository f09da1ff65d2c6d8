"""Runs as a list of records, and as a data frame."""

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from bclightning.cli.main import main
from bclightning.compare.loading import RunList, gather_sweep, load_runs
from bclightning.errors import UserError
from bclightning.runs.record import RunRecord
from bclightning.sweep.definition import Definition
from bclightning.sweep.studies import Studies

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


@pytest.fixture
def stored(folder):
    """A sweep with one finished run, as its storage tells it, and the storage's URL."""
    (folder / "e.yaml").write_text("recipe: digits.yaml\narms: [none]\nfinal_seeds: 1\n")
    definition = Definition.read(folder / "e.yaml")
    url = "sqlite:///stored.db"
    studies = Studies(definition, url)
    try:
        studies.prepare("a recipe")
        claimed = studies.claim()
        record = replace(BASE, run_id=claimed.run_id, stage="final", finished="2026-01-02")
        studies.finish(claimed, record)
    finally:
        studies.close()
    return record, url


def table(capsys, *words) -> dict:
    main(["compare", *words, "--format", "json"])
    return json.loads(capsys.readouterr().out)[0]


def test_a_stale_copy_here_does_not_hide_a_finished_record_of_the_storage(folder, stored, capsys):
    record, url = stored
    stale = replace(
        record, status="running", best_score=None, best_epoch=None, test=[], finished=""
    )
    here = folder / "results/runs/e" / record.run_id
    here.mkdir(parents=True)
    stale.write(here / "run.json")
    (arm,) = table(capsys, "e.yaml", "--storage", url)["arms"]
    assert (arm["n"], arm["best_score"]["mean"], arm["runs"]) == (1, 2.5, [record.run_id])
    # One that is as far is taken from here, where its files are.
    record.write(here / "run.json")
    found = gather_sweep(Path("e.yaml"), url, "results/runs")
    assert [run.folder and run.folder.path for run in found] == [here.relative_to(folder)]
    # And one that is further here.
    replace(record, best_score=1.5, finished="2026-01-03").write(here / "run.json")
    assert table(capsys, "e.yaml", "--storage", url)["arms"][0]["best_score"]["mean"] == 1.5


def test_a_damaged_record_here_is_told_beside_a_storage_too(folder, stored, refused):
    path = folder / "results/runs/e/a/run.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    said = refused("compare", "e.yaml", "--storage", stored[1])
    assert "results/runs/e/a/run.json is not a complete run record" in said


def test_a_sweep_is_compared_while_a_coordinator_has_its_file(folder, stored, capsys):
    record, url = stored
    (folder / ".stored.db.lock").unlink(missing_ok=True)
    table(capsys, "e.yaml", "--storage", url)
    # Who only looks locks nothing.
    assert not (folder / ".stored.db.lock").exists()
    with closing(Studies(Definition.read(folder / "e.yaml"), url)):
        (arm,) = table(capsys, "e.yaml", "--storage", url)["arms"]
    assert arm["runs"] == [record.run_id]


@pytest.mark.parametrize("url", ["sqlite:///typo.db", "sqlite+pysqlite:///no/typo.db"])
def test_a_storage_that_is_not_there_is_not_made(folder, stored, refused, url):
    before = sorted(folder.rglob("*"))
    said = refused("compare", "e.yaml", "--storage", url)
    assert said.endswith(f"there is no {url.partition(':///')[2]}")
    assert "--storage must be" in refused("compare", "e.yaml", "--storage", "typo.db")
    assert sorted(folder.rglob("*")) == before


def test_a_run_folder_that_is_a_link_is_a_run_and_a_broken_one_is_none(folder, runs, capsys):
    (folder / "mine").mkdir()
    (folder / "mine" / "a").symlink_to(runs / "e" / "a")
    (folder / "mine" / "gone").symlink_to(folder / "nowhere")
    (folder / "mine" / "itself").symlink_to(folder / "mine" / "itself")
    assert [run.run_id for run in load_runs("mine")] == ["a"]
    # Two ways to one folder are one run.
    assert len(load_runs("mine", runs / "e")) == 2


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "\udcff", "~nobody/x"])
def test_a_name_that_no_file_can_have_is_one_sentence(folder, refused, name):
    assert "there is no run" in refused("compare", name)
    assert "there is no" in refused("compare", "--check", name)
