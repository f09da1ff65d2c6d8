"""Reading runs back from W&B, and the workspace that compares them there."""

import json
import os
import subprocess
import sys
from dataclasses import replace
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
        *("run_id", "experiment", "regularizer", "data", "seed", "epochs", "arm", "stage"),
        *("hyperparameters", "status", "monitor", "monitor_mode", "best_epoch", "best_score"),
        *("test_metric", "evaluation", "split_sizes", "binary_weights", "real_weights"),
        *("float_bytes", "packed_bytes", "train_seconds"),
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
    assert {arm["arm"]: arm["n"] for arm in compared["arms"]} == {"none": 1, "stochastic": 2}


def logged(server, run_id: str, config: dict, summary: dict) -> None:
    """A run on the server, with what all versions tell of one."""
    common = {
        "arm": "mine",
        "data_set": "digits",
        "seed": 3,
        "split_sizes": {"train": 10},
        "binary_weights": 5,
        "real_weights": 6,
        "trainer": {"max_epochs": 7},
        "model": {"learning_rate": 0.5},
        "seed_everything": 3,
    }
    server.runs[run_id] = {
        "project": "p",
        "displayName": run_id,
        "groupName": "group",
        "jobType": "final",
        "state": "finished",
        "config": {key: {"value": value} for key, value in {**common, **config}.items()},
        "summary": {"best_epoch": 4, "train_seconds": 1.5, "packed_bytes": 8, **summary},
        "history": [],
    }


EVALUATION = {"weights": "real", "batch_norm": "re-estimated"}


def test_a_run_with_any_metric_is_read(server):
    config = {
        "regularizer": "stochastic",
        "evaluation": EVALUATION,
        "monitor": "val_acc",
        "monitor_mode": "max",
        "test_metric": "test/acc",
        "purpose": {"stage": "final", "trial": 2},
    }
    summary = {
        "best_score": 0.98,
        "best/val_acc": 0.98,
        "test_value": 0.97,
        "test/acc": 0.97,
        "test/acc/real/re-estimated": 0.97,
        "test/acc/binary/as_trained": 0.9,
        # Of others, which the run's module may log.
        "test/acc/top/five": 1.0,
        "test/error/real/re-estimated": 3.0,
        "val_acc": 0.5,
    }
    logged(server, "new", config, summary)
    (record,) = records_from_wandb("me/p")
    assert (record.run_id, record.experiment, record.stage) == ("new", "group", "final")
    assert (record.monitor, record.monitor_mode, record.test_metric) == (
        "val_acc",
        "max",
        "test/acc",
    )
    assert (record.best_epoch, record.best_score, record.test_value) == (4, 0.98, 0.97)
    assert record.tested_with("binary", "as trained") == 0.9
    assert len(record.test) == 2
    assert (record.regularizer, record.arm, record.seed) == ("stochastic", "mine", 3)
    assert (record.epochs, record.trial, record.status) == (7, 2, "finished")
    assert record.hyperparameters == {"trainer.max_epochs": 7, "model.learning_rate": 0.5}


def test_a_run_that_version_0_1_0_logged_is_still_read(server):
    config = {"method": "stochastic", "chosen": EVALUATION, "job": {"stage": "final", "trial": 2}}
    summary = {
        "best/val/error": 2.5,
        "test/error": 3.5,
        "test/error/real/re-estimated": 3.5,
        "test/error/binary/as_trained": 9.0,
    }
    logged(server, "old", config, summary)
    (old,) = records_from_wandb("me/p")
    assert (old.monitor, old.monitor_mode, old.test_metric) == ("val/error", "min", "test/error")
    assert (old.best_score, old.test_value, old.trial) == (2.5, 3.5, 2)
    assert old.evaluation == EVALUATION
    # A run of today with the same settings is the same but for its name.
    config = {"regularizer": "stochastic", "evaluation": EVALUATION, "purpose": config["job"]}
    logged(server, "new", config, {**summary, "best_score": 2.5, "test_value": 3.5})
    _, new = records_from_wandb("me/p")
    assert replace(new, run_id="old") == old


def test_an_offline_run_is_uploaded_by_wandb_sync(folder, tiny, server):
    ours = fit(tiny, "a", "offline")
    assert server.runs == {}
    (path,) = (folder / "results/runs/digits/wandb").glob("offline-run-*")
    environment = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
    subprocess.run([WANDB, "sync", str(path)], check=True, env=environment, capture_output=True)
    (back,) = records_from_wandb("me/p")
    assert said_of(back) == said_of(ours)
    history = server.runs["a"]["history"]
    errors = [line["val/error_pct"] for line in history if "val/error_pct" in line]
    assert len(errors) == 3


def finished(server, run_id: str, group: str, stage: str, value: float = 2.5, **more) -> None:
    """A run of a group and a stage on the server."""
    config = {"regularizer": "none", "evaluation": EVALUATION}
    summary = {"best_score": value, "test/error/real/re-estimated": value}
    logged(server, run_id, config, summary)
    server.runs[run_id] |= {"groupName": group, "jobType": stage, **more}


def filters(server) -> dict[str, str]:
    """The value that each key of the last saved workspace's filter asks for."""
    (runset,) = json.loads(server.views[-1]["spec"])["section"]["runSets"]
    text = json.dumps(runset["filters"])
    flat = runset["filters"]["filters"]
    while flat and flat[0].get("filters"):
        flat = flat[0]["filters"]
    found = {entry["key"]["name"]: (entry["op"], entry["value"]) for entry in flat}
    assert all(op in ("=", "==") for op, _ in found.values()), text
    return {name: value for name, (_, value) in found.items()}


def test_a_workspace_shows_the_runs_of_one_experiment_and_one_stage(server, refused, capsys):
    """Trials, runs by hand and other experiments would be averaged with the final runs."""
    for stage, count in (("tune", 3), ("train", 2), ("final", 2)):
        for number in range(count):
            finished(server, f"{stage}{number}", "digits", stage, value=2.5 + number)
    main(["compare", "--workspace", "me/p"])
    assert filters(server) == {"group": "digits", "jobType": "final"}
    assert "digits" in json.dumps(server.views[-1])
    # With another experiment on the same data one has to be named.
    finished(server, "other", "mine", "train")
    finished(server, "trial", "mine", "tune")
    assert refused("compare", "--workspace", "me/p") == (
        "me/p holds runs of several experiments, which would be averaged; name one with "
        "--experiment: digits, mine"
    )
    main(["compare", "--workspace", "me/p", "--experiment", "mine"])
    assert filters(server) == {"group": "mine", "jobType": "train"}
    main(["compare", "--workspace", "me/p", "--experiment", "digits"])
    assert filters(server) == {"group": "digits", "jobType": "final"}
    said = refused("compare", "--workspace", "me/p", "--experiment", "digit")
    assert said == "me/p holds no experiment 'digit' (did you mean digits?)"
    assert len(server.views) == 3
    # A sweep that is still at its search shows its trials.
    server.runs = {"t": server.runs["tune0"], "f": {**server.runs["final0"], "state": "running"}}
    main(["compare", "--workspace", "me/p"])
    assert filters(server) == {"group": "digits", "jobType": "tune"}
    assert refused("compare", "a", "--experiment", "digits") == (
        "--experiment chooses what --workspace or --report shows; leave it out"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": "one"}, "seed must be a whole number, and it is 'one'"),
        ({"evaluation": [1]}, "evaluation must be an object, and it is [1]"),
        ({"arm": None}, "arm must be text, and it is None"),
        ({"trainer": {"max_epochs": "x"}}, "epochs must be a whole number, and it is 'x'"),
        ({"trainer": 3}, "trainer must be an object"),
        ({"purpose": "tune"}, "purpose must be an object"),
        ({"split_sizes": [3]}, "split_sizes must be an object"),
    ],
)
def test_a_run_that_somebody_else_logged_in_our_words_is_one_sentence(
    server, refused, change, said
):
    finished(server, "strange", "digits", "train")
    for key, value in change.items():
        server.runs["strange"]["config"][key] = {"value": value}
    sentence = refused("compare", "--wandb", "me/p")
    assert sentence.startswith("W&B's run strange is not a complete run record: ")
    assert said in sentence


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_metric_that_wandb_spells_out_is_no_number_of_ours(server, value, capsys):
    finished(server, "a", "digits", "train")
    finished(server, "b", "digits", "train", value)
    main(["compare", "--wandb", "me/p", "--format", "markdown"])
    assert "Left out because they have no best value of val/error: b." in capsys.readouterr().out


def test_the_workspace_groups_by_arm_and_shows_errors_curves_and_settings(server, capsys):
    finished(server, "a", "digits", "final")
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
    assert panels["Run History Line Plot"]["xAxis"] == "_step"
    assert panels["Run History Line Plot"]["groupArea"] == "stddev"
    axes = [c["accessor"] for c in panels["Parallel Coordinates Plot"]["columns"]]
    assert axes[0] == "config:arm.value"
    assert axes[1] == "config:learning_rate.value"
    assert "summary:best/val/error_pct" in axes


def test_a_report_holds_the_table_and_the_charts_of_the_final_runs(server, capsys, refused):
    for number in range(3):
        finished(server, f"a{number}", "digits", "final", value=2.5 + number)
        server.runs[f"a{number}"]["config"]["seed"] = {"value": number}
        finished(server, f"t{number}", "digits", "tune", value=9.0)
    main(["compare", "--report", "me/p"])
    assert "me/p/reports" in capsys.readouterr().out
    (view,) = server.views
    assert (view["type"], view["displayName"]) == ("runs", "Arms of digits")
    text = view["spec"]
    blocks = json.loads(text)["blocks"]
    # Mean and spread of the three final runs, without the trials.
    (table,) = (block["content"] for block in blocks if block["type"] == "markdown-block")
    assert "| mine | 3 | 3.50 ± 1.00 |" in table
    asked, charts = [], []
    for block in blocks:
        for runset in block.get("metadata", {}).get("runSets", []):
            asked.append(json.dumps(runset["filters"]))
        for panel in (block.get("metadata", {}).get("panelBankSectionConfig") or {}).get(
            "panels", []
        ):
            charts.append(panel["viewType"])
    assert all('"final"' in filter and '"digits"' in filter for filter in asked)
    assert len(asked) == 4
    assert charts.count("Bar Chart") == 3
    assert charts.count("Run History Line Plot") == 2
    assert refused("compare", "a", "--report", "me/p") == "--report stands alone; leave out a"


def test_errors_are_one_sentence(folder, refused, online, monkeypatch):
    for option in ("--wandb", "--workspace"):
        assert "ENTITY/PROJECT" in refused("compare", option, "project")
        assert "W&B needs an API key" in refused("compare", option, "me/p")
    server = Server()
    online(server.url)
    assert "W&B did not give me/none" in refused("compare", "--wandb", "me/none")
    server.runs["stranger"] = {"project": "p", "config": {}, "summary": {}, "history": []}
    assert "holds no run of this toolkit" in refused("compare", "--wandb", "me/p")
    assert "holds no run of this toolkit" in refused("compare", "--workspace", "me/p")
    server.status = 401
    for option in ("--wandb", "--workspace"):
        assert "W&B did not give me/p" in refused("compare", option, "me/p")
    server.stop()
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert "pip install 'bclightning[workspace]'" in refused("compare", "--workspace", "me/p")


def test_runs_and_wandb_do_not_go_together(refused):
    assert "leave out a" in refused("compare", "a", "--wandb", "me/p")
    assert "leave out a" in refused("compare", "a", "--workspace", "me/p")
