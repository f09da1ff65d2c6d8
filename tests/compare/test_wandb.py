"""Reading runs back from W&B, and the workspace that compares them there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from wandb_server import KEY, Server

from bclightning.cli.main import main
from bclightning.compare.wandb_runs import records_from_wandb
from bclightning.runs.record import RunRecord

WANDB = Path(sys.executable).with_name("wandb")


@pytest.fixture
def server(online):
    """A server that W&B is pointed to."""
    server = Server(page=2)
    online(server.url)
    yield server
    server.stop()


def fit(tiny, run_id, mode, *words) -> RunRecord:
    tracking = ["--wandb.mode", mode, "--wandb.project", "p"]
    main(["fit", "--config", tiny, "--run_id", run_id, *tracking, *words])
    return RunRecord.read(Path("results/runs/digits") / run_id / "run.json")


def said_of(record: RunRecord) -> dict:
    """What W&B is told of a run."""
    names = (
        *("run_id", "experiment", "method", "data", "seed", "epochs", "arm", "stage", "settings"),
        *("status", "best_epoch", "validation_error", "chosen", "split_sizes", "binary_weights"),
        *("real_weights", "float_bytes", "packed_bytes", "train_seconds"),
    )
    facts = {name: getattr(record, name) for name in names}
    facts["arm"] = record.arm_name
    facts["test"] = sorted(record.test, key=str)
    # As it comes out of JSON.
    return json.loads(json.dumps(facts))


def test_runs_logged_online_come_back_as_they_were_recorded(folder, tiny, server, capsys):
    none = "--model.network.regularizer=none"
    # Three runs, and pages of two.
    ours = [
        fit(tiny, "a", "online", "--seed_everything=1"),
        fit(tiny, "b", "online", "--seed_everything=2"),
        fit(tiny, "c", "online", "--seed_everything=1", none),
    ]
    server.runs["stranger"] = {"project": "p", "config": {}, "summary": {}, "history": []}
    back = records_from_wandb("me/p")
    assert [said_of(record) for record in back] == [said_of(record) for record in ours]
    capsys.readouterr()
    main(["compare", "--wandb", "me/p", "--format", "json"])
    (compared,) = json.loads(capsys.readouterr().out)
    assert {row["method"]: row["n"] for row in compared["rows"]} == {"none": 1, "stochastic": 2}


def test_an_offline_run_is_uploaded_by_wandb_sync(folder, tiny, server):
    ours = fit(tiny, "a", "offline")
    assert server.runs == {}
    (path,) = (folder / "results/runs/digits/a/wandb").glob("offline-run-*")
    environment = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
    subprocess.run([WANDB, "sync", str(path)], check=True, env=environment, capture_output=True)
    (back,) = records_from_wandb("me/p")
    assert said_of(back) == said_of(ours)
    errors = [line["val/error"] for line in server.runs["a"]["history"] if "val/error" in line]
    assert len(errors) == 3


def test_the_workspace_groups_by_method_and_shows_errors_curves_and_settings(server, capsys):
    main(["compare", "--workspace", "me/p"])
    assert "me/p" in capsys.readouterr().out
    (view,) = server.views
    spec = json.loads(view["spec"])
    (runset,) = spec["section"]["runSets"]
    assert [key["name"] for key in runset["grouping"]] == ["data_set.value", "arm.value"]
    panels = {
        panel["viewType"]: panel["config"]
        for section in spec["section"]["panelBankConfig"]["sections"]
        for panel in section["panels"]
    }
    assert set(panels) == {
        "Bar Chart",
        "Run History Line Plot",
        "Parallel Coordinates Plot",
        "Run Comparer",
    }
    assert panels["Run History Line Plot"]["xAxis"] == "epoch"
    assert panels["Run History Line Plot"]["groupArea"] == "stddev"
    axes = [c["accessor"] for c in panels["Parallel Coordinates Plot"]["columns"]]
    assert axes[0] == "config:arm.value"
    assert "summary:best/val/error" in axes


def test_errors_are_one_sentence(folder, refused, online, monkeypatch):
    for option in ("--wandb", "--workspace"):
        assert "ENTITY/PROJECT" in refused("compare", option, "project")
        assert "W&B needs an API key" in refused("compare", option, "me/p")
    server = Server()
    online(server.url)
    assert "W&B did not give me/none" in refused("compare", "--wandb", "me/none")
    server.runs["stranger"] = {"project": "p", "config": {}, "summary": {}, "history": []}
    assert "holds no run of this toolkit" in refused("compare", "--wandb", "me/p")
    server.status = 401
    for option in ("--wandb", "--workspace"):
        assert "W&B did not give me/p" in refused("compare", option, "me/p")
    server.stop()
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert "pip install 'bclightning[workspace]'" in refused("compare", "--workspace", "me/p")


def test_runs_and_wandb_do_not_go_together(refused):
    assert "leave out a" in refused("compare", "a", "--wandb", "me/p")
    assert "leave out a" in refused("compare", "a", "--workspace", "me/p")
