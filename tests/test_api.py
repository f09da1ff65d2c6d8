"""The public names, and the ten lines that train, sweep and compare."""

import logging
import subprocess
import sys

import pytest

import bclightning
from bclightning.runs import RunConfig, fit


def test_every_public_name_is_there():
    assert {"fit", "sweep", "load_runs", "compare", "BinaryConnect"} <= set(bclightning.__all__)
    for name in bclightning.__all__:
        assert getattr(bclightning, name) is not None


def test_importing_it_imports_neither_torch_nor_lightning():
    code = (
        "import sys, bclightning, bclightning.runs, bclightning.vocabulary\n"
        "import bclightning.sweep.definition, bclightning.compare, bclightning.runs.record\n"
        "print({'torch', 'lightning', 'optuna'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_run_is_a_function_of_typed_settings_and_prints_nothing(folder, tiny, capfd, caplog):
    caplog.set_level(logging.INFO, "bclightning")
    record = fit(RunConfig.load(tiny, {"model.learning_rate": 0.0123, "run_id": "r"}))
    assert record.hyperparameters["model.learning_rate"] == 0.0123
    assert record.status == "finished"
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    assert "testing the best epoch ..." in caplog.messages
    again = fit(RunConfig.from_run("results/runs/digits/r"))
    assert again == record
    assert "stays as it is" in caplog.text


def test_resuming_with_another_setting_is_refused(folder, tiny):
    fit(RunConfig.load(tiny, {"run_id": "r"}))
    with pytest.raises(bclightning.errors.UserError, match=r"--model.momentum cannot change"):
        fit(RunConfig.from_run("results/runs/digits/r", {"model.momentum": 0.5}))


def test_ten_lines_train_sweep_and_compare(folder, tiny, capfd):
    bclightning.fit(RunConfig.load(tiny, {"model.network.regularizer": "none", "experiment": "a"}))
    definition = {
        "name": "b",
        "recipe": tiny,
        "arms": ["none", "stochastic"],
        "space": {"model.learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}},
        "overrides": {"trainer.max_epochs": 1},
        "trials": 1,
        "final_seeds": 2,
    }
    records = bclightning.sweep(definition, jobs=2)
    assert [record.status for record in records] == ["finished"] * 6
    (comparison,) = bclightning.compare(bclightning.load_runs("results/runs/b"))
    assert {arm.name: len(arm.runs) for arm in comparison.arms} == {"none": 2, "stochastic": 2}
    assert capfd.readouterr().out == ""
