"""A run finds its data again: from another folder, and where it was moved to."""

import shutil

import pytest
import yaml

from bclightning.runs import RunConfig, fit
from bclightning.runs.data import root_of_run, root_to_write

SMALL = {
    "trainer.max_epochs": 1,
    "data.batch_size": 20,
    "model.network.hidden": [8],
    "wandb.mode": "disabled",
    "run_id": "r",
}


@pytest.fixture(autouse=True)
def no_data_variable(monkeypatch):
    monkeypatch.delenv("BCL_DATA", raising=False)


@pytest.fixture
def began(mnist_root, monkeypatch):
    """A folder where a run is begun, with the data in ``data`` and in ``sets``."""
    shutil.copytree(mnist_root, mnist_root.parent / "sets")
    monkeypatch.chdir(mnist_root.parent)
    return mnist_root.parent


@pytest.fixture
def elsewhere(began, monkeypatch):
    """Another folder, which has no data."""

    def go():
        (began / "elsewhere").mkdir(exist_ok=True)
        monkeypatch.chdir(began / "elsewhere")
        return began / "elsewhere"

    return go


def root_of(run) -> str | None:
    return RunConfig.from_run(run).plain()["data"]["init_args"]["root"]


@pytest.mark.parametrize("root", [None, "sets"])
@pytest.mark.parametrize("runs", ["runs", "absolute"])
def test_a_run_finds_its_data_from_another_folder(began, elsewhere, root, runs):
    runs_dir = str(began / "runs") if runs == "absolute" else runs
    fit(RunConfig.load("mnist.yaml", {**SMALL, "data.root": root, "runs_dir": runs_dir}))
    elsewhere()
    assert root_of(began / "runs/mnist-fit/r") == str(began / (root or "data"))
    assert root_of("../runs/mnist-fit/r") == str(began / (root or "data"))


def test_a_run_that_did_not_say_where_its_data_are_does_not_say_it_in_what_is_published(began):
    fit(RunConfig.load("mnist.yaml", {**SMALL, "runs_dir": "runs"}))
    written = yaml.safe_load((began / "runs/mnist-fit/r/config.yaml").read_text())
    assert written["data"]["init_args"]["root"] is None
    assert root_of("runs/mnist-fit/r") is None


def test_data_of_the_folder_or_the_variable_come_first(began, elsewhere, monkeypatch):
    fit(RunConfig.load("mnist.yaml", {**SMALL, "runs_dir": "runs"}))
    here = elsewhere()
    run = str(began / "runs/mnist-fit/r")
    monkeypatch.setenv("BCL_DATA", str(began / "sets"))
    assert root_of(run) is None
    monkeypatch.delenv("BCL_DATA")
    (here / "data").mkdir()
    assert root_of(run) is None


def test_a_record_of_another_machine_is_looked_for_where_this_one_has_its_data(began, elsewhere):
    fit(RunConfig.load("mnist.yaml", {**SMALL, "data.root": "sets", "runs_dir": "runs"}))
    shutil.rmtree("sets")
    run = str(began / "runs/mnist-fit/r")
    assert root_of(run) is None
    # What is given here is taken as it is.
    config = RunConfig.from_run(run, {"data.root": "/nowhere"})
    assert config["data.root"] == "/nowhere"


def test_a_whole_project_that_was_moved_finds_its_data(began, elsewhere):
    fit(RunConfig.load("mnist.yaml", {**SMALL, "runs_dir": "runs"}))
    here = elsewhere()
    shutil.copytree(began / "runs", here / "project/runs")
    shutil.copytree(began / "data", here / "project/data")
    assert root_of("project/runs/mnist-fit/r") == str(here / "project/data")


@pytest.mark.parametrize("root", ["s3://images", "/nowhere", None])
def test_what_another_class_calls_its_root_is_left_alone(began, elsewhere, root):
    config = {"data": {"class_path": "mine.Images", "init_args": {"root": root}}, "runs_dir": "/r"}
    assert root_to_write(config) == root
    assert root_of_run(config, began / "runs/mnist-fit/r") == root
