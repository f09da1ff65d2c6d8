"""A sweep as a function: from a script, a notebook, or another program."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import bclightning.sweep
from bclightning import RunConfig, load_runs
from bclightning.cli.main import main
from bclightning.errors import UserError
from bclightning.runs.origin import definition_is_code
from bclightning.sweep import check as checks
from bclightning.sweep.definition import Definition
from bclightning.sweep.monitor import Monitor
from bclightning.sweep.view import View


def definition(tiny, **change) -> dict:
    final = {"name": "mine", "recipe": tiny, "arms": ["stochastic"], "final_seeds": 1}
    return {**final, "overrides": {"trainer.max_epochs": 2}, **change}


def test_the_package_is_the_function_and_imports_little():
    code = (
        "import sys, bclightning.sweep; from bclightning.sweep.definition import Definition; "
        "assert callable(bclightning.sweep); "
        "assert not {'torch', 'lightning', 'optuna', 'sqlalchemy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_its_records_are_returned_and_nothing_is_printed(folder, tiny, capfd):
    space = {"model.learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}}
    asked = definition(tiny, space=space, trials=2)
    records = bclightning.sweep(asked, jobs=2, runs_dir="runs")
    assert capfd.readouterr() == ("", "")
    assert [(run.run_id, run.stage, run.status) for run in records] == [
        ("mine-stochastic-t000", "tune", "finished"),
        ("mine-stochastic-t001", "tune", "finished"),
        ("mine-stochastic-s1", "final", "finished"),
    ]
    rates = [run.hyperparameters["model.learning_rate"] for run in records]
    assert len(set(rates)) == 2
    assert (
        rates[2]
        == min(records[:2], key=lambda run: run.best_score).hyperparameters["model.learning_rate"]
    )
    for run in records:
        path = folder / "runs" / "mine" / run.run_id / "run.json"
        assert json.loads(path.read_text())["hyperparameters"] == run.hyperparameters
    # Again, there is nothing to do, and the records are the same.
    assert bclightning.sweep(Definition.load(asked), runs_dir=folder / "runs") == records


def test_home_is_expanded_in_arguments_as_on_the_command_line(folder, tiny, monkeypatch):
    monkeypatch.setenv("HOME", str(folder / "home"))
    (folder / "home").mkdir()
    (folder / "home" / "tiny.yaml").write_text(Path(tiny).read_text())
    (run,) = bclightning.sweep(
        definition("~/tiny.yaml", overrides={"trainer.max_epochs": 1}),
        runs_dir="~/runs",
        storage="sqlite:///~/studies.db",
        options={"data.root": "~/data"},
    )
    assert (folder / "home" / "runs" / "mine" / run.run_id / "run.json").is_file()
    assert (folder / "home" / "studies.db").is_file()
    assert [found.run_id for found in load_runs("~/runs/mine")] == [run.run_id]
    assert [found.run_id for found in load_runs(run.run_id, runs_dir="~/runs")] == [run.run_id]
    config = RunConfig.load("~/tiny.yaml", {"runs_dir": Path("~/runs")})
    assert config["runs_dir"] == str(folder / "home" / "runs")
    again = RunConfig.from_run(f"~/runs/mine/{run.run_id}", {"data.root": "~/sets"})
    assert again["data.root"] == str(folder / "home" / "sets")
    assert sorted(path.name for path in folder.iterdir()) == ["home"]


def test_a_sent_definition_is_data_however_it_is_named(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    sent = folder / "sent"
    (sent / "a").mkdir(parents=True)
    (sent / "a" / "run.json").write_text("{}")
    (sent / "sweep.yaml").write_text("recipe: digits.yaml\narms: [none]\n")
    for name in (sent / "sweep.yaml", "~/sent/sweep.yaml", Path("~/sent/sweep.yaml")):
        assert not definition_is_code(name), name


def test_a_script_needs_no_main_guard(folder, tiny):
    """A worker that imported the script would start the sweep once more."""
    script = folder / "script.py"
    script.write_text(
        "import bclightning.sweep\n"
        f"records = bclightning.sweep({definition(tiny)!r})\n"
        "print([run.run_id for run in records])\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=200)
    assert (done.stdout, done.stderr) == ("['mine-stochastic-s1']\n", "")


def test_an_edit_of_the_recipe_changes_nothing_of_a_sweep_that_runs(folder, tiny):
    recipe = folder / "recipe.yaml"
    recipe.write_text(Path(tiny).read_text())

    class Editor(View):
        def event(self, run_id: str, what: str) -> None:
            content = yaml.safe_load(Path(tiny).read_text())
            content["model"]["learning_rate"] = 0.5
            recipe.write_text(yaml.safe_dump(content))

    asked = definition("recipe.yaml", final_seeds=2)
    records = bclightning.sweep(asked, view=Editor())
    assert [run.hyperparameters["model.learning_rate"] for run in records] == [0.01, 0.01]
    with pytest.raises(UserError, match="with a different recipe"):
        bclightning.sweep(asked)


@pytest.mark.parametrize("name", ["a#b%20c", "100%", "what?", "a{b} 'c'"])
def test_a_folder_of_runs_may_be_called_anything(folder, tiny, capsys, name):
    """The storage is named by a URL, in which such characters mean something."""
    asked = definition(tiny, overrides={"trainer.max_epochs": 1})
    bclightning.sweep(asked, runs_dir=name)
    assert sorted(os.listdir()) == [name]
    assert (folder / name / "mine" / "storage.db").is_file()
    Path("mine.yaml").write_text(yaml.safe_dump(asked))
    main(["sweep", "mine.yaml", "--status", "--runs_dir", name])
    assert "1/1" in capsys.readouterr().out


def test_runs_that_fail_are_among_the_records(folder, tiny):
    arms = {"good": {}, "bad": {"model.learning_rate": 1e30}}
    records = bclightning.sweep(definition(tiny, arms=arms))
    assert {run.arm_name: run.status for run in records} == {"good": "finished", "bad": "failed"}
    (bad,) = [run for run in records if run.status == "failed"]
    assert "loss" in bad.reason


@pytest.mark.slow
def test_workers_have_the_environment_of_the_call(folder, tiny, monkeypatch):
    """They are forked from a process that may be older than a variable's value."""
    content = yaml.safe_load(Path(tiny).read_text())
    del content["wandb"]
    Path("recipe.yaml").write_text(yaml.safe_dump(content))
    found = []
    for mode in ("disabled", "offline"):
        monkeypatch.setenv("WANDB_MODE", mode)
        (record,) = bclightning.sweep(definition("recipe.yaml", name=mode))
        found.append(record.wandb["mode"])
    assert found == ["disabled", "offline"]


def test_options_of_all_runs_say_where_things_are(folder, tiny):
    for key in ("model.learning_rate", "trainer.max_epochs", "dataroot", "wandb"):
        with pytest.raises(UserError, match=f"{key} changes what is trained"):
            bclightning.sweep(definition(tiny), options={key: 1})
    (record,) = bclightning.sweep(definition(tiny), options={"wandb.mode": "offline"})
    assert record.wandb["mode"] == "offline"


@pytest.mark.parametrize("argument", ["jobs", "threads", "heartbeat"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2"])
def test_numbers_that_make_no_sense(tiny, argument, value):
    with pytest.raises(UserError, match=f"{argument} must be an integer of at least 1"):
        bclightning.sweep(definition(tiny), **{argument: value})


def test_a_class_of_the_script_is_refused_before_a_worker_misses_it(folder, tiny):
    callback = {"class_path": "__main__.Mine"}
    content = yaml.safe_load(Path(tiny).read_text())
    content["trainer"]["callbacks"] = [callback]
    Path("recipe.yaml").write_text(yaml.safe_dump(content))
    by_option = {"trainer.callbacks": [callback]}
    for asked in (definition("recipe.yaml"), definition(tiny, overrides=by_option)):
        with pytest.raises(UserError, match="is defined in the script or notebook"):
            bclightning.sweep(asked)
    assert os.listdir() == ["recipe.yaml"]


def test_all_arms_are_judged_by_one_metric(monkeypatch, tiny):
    accuracy = Monitor("val/acc", "max")

    def build(recipe, options, allowed):
        return accuracy if options["model.network.regularizer"] == "none" else Monitor()

    monkeypatch.setattr(checks, "_build", build)
    asked = Definition.load(definition(tiny, arms=["none"]))
    assert checks.check(asked, {}) == accuracy
    asked = Definition.load(definition(tiny, arms=["none", "dropout", "stochastic"]))
    with pytest.raises(UserError) as error:
        checks.check(asked, {})
    assert "val/acc (max) by none, val/error (min) by dropout" in str(error.value)


def test_a_recipe_that_is_none(folder, tiny):
    Path("recipe.yaml").write_text("trainer: [")
    with pytest.raises(UserError, match=r"recipe.yaml is not a readable YAML file: "):
        bclightning.sweep(definition("recipe.yaml"))
    Path("recipe.yaml").write_text("- trainer")
    with pytest.raises(UserError, match=r"recipe.yaml is not a YAML configuration"):
        bclightning.sweep(definition("recipe.yaml"))
