"""Any LightningModule trains, resumes, is recorded, compared and reproduced like a Classifier."""

import os
import signal
from pathlib import Path

import pytest
import yaml
from own_modules import Regression

from bclightning.cli.main import main
from bclightning.compare.comparison import compare
from bclightning.errors import UserError
from bclightning.nn import binary_layers
from bclightning.runs import RunConfig, fit
from bclightning.runs.callbacks import SeedEachEpoch
from bclightning.runs.evaluate import evaluate
from bclightning.runs.metrics_csv import MetricsTable
from bclightning.runs.rebuild import rebuild
from bclightning.runs.record import RunRecord

RUNS = "results/runs/table-fit"

OWN = {
    "model": {"class_path": "own_modules.Regression"},
    "data": {"class_path": "own_modules.Table"},
    "monitor": "val_loss",
    "trainer.max_epochs": 4,
    "wandb.mode": "disabled",
}


def words(model: str, *more: str) -> list[str]:
    own = ["--model", f"own_modules.{model}", "--data", "own_modules.Table"]
    return ["fit", *own, "--wandb.mode", "disabled", "--trainer.max_epochs", "4", *more]


def record(run_id: str) -> RunRecord:
    return RunRecord.read(RunConfig.from_run(f"{RUNS}/{run_id}").folder.record)


@pytest.mark.parametrize("model", ["Regression", "TwoOptimizers"])
@pytest.mark.parametrize(("monitor", "mode"), [("val_loss", "min"), ("val_fit", "max")])
def test_what_it_monitors_chooses_the_epoch_and_is_recorded(folder, capsys, model, monitor, mode):
    main(words(model, "--monitor", monitor, "--monitor_mode", mode, "--run_id", "r"))
    found = record("r")
    metrics = MetricsTable(RunConfig.from_run(f"{RUNS}/r").folder.metrics).rows
    best = (min if mode == "min" else max)(row[monitor] for row in metrics)
    assert (found.monitor, found.monitor_mode, found.best_score) == (monitor, mode, best)
    assert metrics[found.best_epoch][monitor] == best
    assert found.test_metric == monitor.replace("val", "test")
    assert [(e["weights"], e["batch_norm"]) for e in found.test] == [
        ("real", "as trained"),
        ("real", "re-estimated"),
    ]
    said = capsys.readouterr().out
    assert f"{monitor} {best:.4g}" in said
    assert found.test_metric in said


def test_its_own_defaults_hold_and_not_those_of_the_default_class(folder):
    """Both have a learning rate, and Classifier's is a tenth of this one's."""
    config = RunConfig.load(OWN)
    assert config["model.learning_rate"] == 1e-2
    assert config.build().model.learning_rate == 1e-2
    main(words("Regression", "--monitor", "val_loss", "--run_id", "r"))
    assert record("r").hyperparameters["model.init_args.learning_rate"] == 1e-2


def test_training_lowers_its_loss_and_the_test_is_its_own(folder):
    long = fit({**OWN, "trainer.max_epochs": 25, "run_id": "long"})
    short = fit({**OWN, "trainer.max_epochs": 1, "run_id": "short"})
    assert long.best_score < short.best_score / 2
    assert long.test_value < short.test_value / 2


def test_it_gets_binary_weights_where_they_are_asked_for(folder):
    own = ["--monitor", "val_loss", "--run_id", "r"]
    main(words("Regression", *own, "--binarization", "stochastic", "--skip", "head*"))
    found = record("r")
    assert found.regularizer == "stochastic"
    assert found.binary_weights == 8 * 32
    assert found.evaluation == {"weights": "real", "batch_norm": "re-estimated"}
    assert {(e["weights"], e["batch_norm"]) for e in found.test} == {
        (weights, statistics)
        for weights in ("binary", "real")
        for statistics in ("as trained", "re-estimated")
    }
    config = RunConfig.from_run(f"{RUNS}/r")
    weight = config.build().model.body[0].weight
    assert type(Regression().body[0]) is not type(config.build().model.body[0])
    assert weight.shape == (32, 8)


@pytest.mark.parametrize("model", ["MadeInSetup", "MadeInConfigureModel"])
def test_layers_that_it_makes_when_a_stage_begins_are_recorded_and_tested(folder, model):
    binary = {"binarization": "deterministic", "trainer.max_epochs": 3}
    found = fit({**OWN, **binary, "model": {"class_path": f"own_modules.{model}"}})
    assert (found.regularizer, found.binary_weights) == ("deterministic", 8 * 32 + 32)
    assert "-deterministic-" in found.run_id
    best = RunConfig.from_run(f"{RUNS}/{found.run_id}")
    trained = rebuild(best)
    again = evaluate(
        trained.model, trained.data, trained.trainer, "test", "test_loss", trained.make_trainer
    )
    as_trained = [
        [e for e in entries if e["batch_norm"] == "as trained"]
        for entries in (found.test, [result.entry() for result in again])
    ]
    assert as_trained[0] == as_trained[1] != []
    assert len(binary_layers(trained.model)) == 2


def test_layers_that_it_makes_at_each_stage_again_are_refused_before_training(folder):
    """A test, in Lightning too, would be of the new ones."""
    with pytest.raises(UserError, match=r"MadeInEachSetup makes head\.weight again in setup"):
        fit({**OWN, "model": {"class_path": "own_modules.MadeInEachSetup"}})
    assert not folder.joinpath("results").exists()


def test_a_module_without_a_layer_to_convert_is_refused_before_training(folder):
    skip = {"binarization": "deterministic", "skip": ["body*", "head"]}
    model = {"class_path": "own_modules.MadeInConfigureModel"}
    with pytest.raises(UserError, match="no Linear or Conv2d to convert"):
        fit({**OWN, **skip, "model": model})
    assert not folder.joinpath("results").exists()


def test_a_classifier_with_steps_of_its_own_is_judged_by_them(folder, tiny):
    """It was tested by its scores, whatever its test step said."""
    content = yaml.safe_load(Path(tiny).read_text())
    content["model"] = {"class_path": "own_modules.Opposite", "init_args": content["model"]}
    found = fit({**content, "trainer.max_epochs": 2})
    assert found.best_score > 90
    assert found.test_metric == "test/error"
    assert all(entry["value"] > 90 for entry in found.test)


def test_skip_alone_is_refused(folder, refused):
    assert "give that too" in refused(*words("Regression", "--skip", "head"))


@pytest.mark.parametrize("model", ["Regression", "TwoOptimizers"])
def test_it_is_resumed_to_the_same_end_and_reproduced(folder, capsys, model, monkeypatch):
    own = ["--monitor", "val_loss", "--binarization", "stochastic"]
    main(words(model, *own, "--run_id", "whole"))
    left = [3]

    def stop(*_):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(SeedEachEpoch, "on_train_epoch_end", stop)
        with pytest.raises(SystemExit) as stopped:
            main(words(model, *own, "--run_id", "stopped"))
        assert stopped.value.code == 143
    main(["fit", "--resume", f"{RUNS}/stopped"])
    rows = [
        MetricsTable(RunConfig.from_run(f"{RUNS}/{r}").folder.metrics).rows
        for r in ("whole", "stopped")
    ]
    assert rows[0] == rows[1]
    assert record("whole").test == record("stopped").test
    capsys.readouterr()
    main(["reproduce", f"{RUNS}/whole"])
    assert "bit for bit the same" in capsys.readouterr().out


def test_its_runs_are_compared_by_what_they_monitor(folder):
    binary = {**OWN, "binarization": "deterministic"}
    runs = [
        fit({**config, "seed_everything": seed, "run_id": f"{name}{seed}"})
        for name, config in (("real", OWN), ("binary", binary))
        for seed in (0, 1)
    ]
    (comparison,) = compare(runs)
    assert (comparison.monitor.name, len(comparison.arms)) == ("val_loss", 2)
    assert "best val_loss (min)" in str(compare(runs))


def test_it_is_swept(folder, capsys):
    (folder / "own.yaml").write_text(yaml.safe_dump({**OWN, "trainer": {"max_epochs": 2}}))
    definition = {
        "name": "own",
        "recipe": "own.yaml",
        "arms": {"real": {}, "binary": {"binarization": "deterministic"}},
        "space": {"model.learning_rate": {"low": 1e-3, "high": 1e-1, "log": True}},
        "overrides": {"monitor": "val_fit", "monitor_mode": "max"},
        "trials": 2,
        "final_seeds": 1,
    }
    content = {k: v for k, v in OWN.items() if "." not in k}
    content |= {"trainer": {"max_epochs": 2}, "wandb": {"mode": "disabled"}}
    (folder / "own.yaml").write_text(yaml.safe_dump(content))
    (folder / "sweep.yaml").write_text(yaml.safe_dump(definition))
    main(["sweep", "sweep.yaml"])
    said = capsys.readouterr().out
    assert "val_fit" in said
    finals = [RunRecord.read(p) for p in sorted(folder.glob("results/runs/own/*-s1/run.json"))]
    assert {r.arm_name for r in finals} == {"real", "binary"}
    for final in finals:
        trials = [
            RunRecord.read(p)
            for p in folder.glob(f"results/runs/own/own-{final.arm_name}-t*/run.json")
        ]
        best = max(trials, key=lambda trial: trial.best_score)
        rate = "model.init_args.learning_rate"
        assert final.hyperparameters[rate] == best.hyperparameters[rate]


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (["export", "r"], "cannot be exported: only a network inside"),
        (["predict", "r"], "does not say what its classes are"),
        (["summary", "r"], "is no Classifier, so its network is not known"),
        (["test", "r", "--eval_weights", "ensemble"], "has no binary weights"),
        (["test", "r", "--test_metric", "test_nothing"], "logs test_loss, test_fit, and not test_"),
    ],
)
def test_what_needs_a_classifier_says_so(folder, refused, command, sentence):
    fit({**OWN, "trainer.max_epochs": 1, "run_id": "r"})
    assert sentence in refused(*command)


def test_a_metric_that_is_not_logged_is_named_with_those_that_are(folder, refused):
    said = refused(*words("Regression"))
    assert "val/error, which was not logged" in said
    assert "val_fit, val_loss" in said
