"""Training longer, and other new runs that start from the weights of another one."""

import hashlib
import json
import shlex

import pytest
import yaml

from bclightning.cli import fit
from bclightning.cli.main import main, make_parser
from bclightning.errors import UserError
from bclightning.runs.config import RunConfig, parse_words
from bclightning.runs.metrics_csv import MetricsTable
from bclightning.runs.origin import signed
from bclightning.runs.record import RunRecord


@pytest.fixture
def trained(folder, tiny):
    """A finished run, and the folder of its experiment."""
    words = ["--trainer.max_epochs", "1", "--model.learning_rate", "0.02", "--data.root", "here"]
    main(["fit", "--config", tiny, *words, "--run_id", "r", "--experiment", "tried"])
    return folder / "results/runs/tried"


def command_in(said):
    """The words of the command that a sentence ends with."""
    return shlex.split(said.partition(": bcl ")[2])


def test_training_longer_is_a_new_run_that_the_answer_gives_the_command_for(trained, refused):
    said = refused("fit", "--resume", "r", "--trainer.max_epochs", "3")
    assert said.startswith("--trainer.max_epochs cannot change when a run is resumed, since sched")
    assert said.endswith(": bcl fit --warm_start r --trainer.max_epochs 3")
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    main(command_in(said))
    assert {path: path.read_bytes() for path in before} == before
    (longer,) = (path for path in trained.iterdir() if path.name != "r")
    record = RunRecord.read(longer / "run.json")
    assert (record.status, record.epochs, record.stage) == ("finished", 3, "train")
    # Its settings are those of the run, and the record says where its weights came from.
    assert record.hyperparameters["model.learning_rate"] == 0.02
    weights = (trained / "r/checkpoints/last.ckpt").read_bytes()
    assert record.warm_start == {
        "sha256": hashlib.sha256(weights).hexdigest(),
        "epoch": 0,
        "run_id": "r",
        "experiment": "tried",
    }
    # The weights of the run are its first ones.
    (last,) = MetricsTable(trained / "r/metrics.csv").rows
    first, *_ = MetricsTable(longer / "metrics.csv").rows
    assert first["train/loss"] < last["train/loss"] / 2


def test_a_run_that_was_cleaned_is_trained_longer_from_its_best_epoch(trained):
    checkpoints = trained / "r/checkpoints"
    (checkpoints / "last.ckpt").unlink()
    main(["fit", "--warm_start", "r", "--trainer.max_epochs", "2", "--run_id", "longer"])
    weights = (checkpoints / "best.ckpt").read_bytes()
    record = RunRecord.read(trained / "longer/run.json")
    assert record.warm_start["sha256"] == hashlib.sha256(weights).hexdigest()


@pytest.mark.parametrize(
    ("words", "sentence", "options"),
    [
        (
            ["--model.learning_rate", "0.5", "--trainer.accumulate_grad_batches=2"],
            "--trainer.accumulate_grad_batches cannot change when a run is resumed, since it",
            "--trainer.accumulate_grad_batches 2 --model.learning_rate 0.5",
        ),
        (
            ["--model.optimizer", "sgd", "--run_id", "other"],
            "--model.optimizer cannot change when a run is resumed, since it would be another run",
            "--model.optimizer sgd --run_id other",
        ),
        (["--model.network.hidden", "[8, 9]"], "--model.network.hidden cannot", None),
        (["--run_id", "other"], "--run_id cannot change when a run is resumed, since it keeps", ""),
    ],
)
def test_what_cannot_change_on_resume_is_said_with_what_can_be_done(
    trained, refused, words, sentence, options
):
    said = refused("fit", "--resume", "r", *words)
    assert said.startswith(sentence)
    if options == "":
        assert "leave it out" in said
    elif options is None:
        assert command_in(said)[-2:] == ["--model.network.hidden", "[8, 9]"]
    else:
        assert said.endswith(f": bcl fit --warm_start r {options}")


def test_a_finished_run_says_how_to_train_longer(trained, capsys):
    main(["fit", "--resume", "r"])
    assert "\nbcl fit --warm_start r --trainer.max_epochs N\n" in capsys.readouterr().out


def settings(words):
    """The configuration that a command line makes."""
    options = parse_words(make_parser("fit", fit), words, "--resume")
    return RunConfig.from_parsed(options, [fit.FitOptions])


def test_other_options_change_the_settings_wherever_they_stand(trained, tiny):
    for words in (["--seed_everything=7", "--warm_start", "r"], ["--warm_start=r", "--config"]):
        words = [*words, *([tiny] if words[-1] == "--config" else [])]
        config = settings(words)
        assert config["run_id"] is None
        if "--config" in words:
            # It has the last word, as options have.
            assert (config["model.learning_rate"], config["trainer.max_epochs"]) == (0.01, 3)
        else:
            assert (config["model.learning_rate"], config["seed_everything"]) == (0.02, 7)
            assert config["experiment"] == "tried"


def test_a_checkpoint_gives_weights_alone(trained, tiny):
    last = str(trained / "r/checkpoints/last.ckpt")
    config = settings(["--config", tiny, "--warm_start", last])
    assert (config["warm_start"], config["model.learning_rate"]) == (last, 0.01)


def test_a_run_of_a_sweep_is_not_trained_further_in_the_sweeps_folder(trained):
    path = trained / "r/config.yaml"
    content = yaml.safe_load(path.read_text())
    content["purpose"] = {"stage": "final", "arm": "none", "trial": 1, "sweep_id": "k1"}
    path.write_text(signed(yaml.safe_dump(content)))
    (trained / "sweep.yaml").touch()
    config = settings(["--warm_start", "r"])
    assert config["experiment"] is config["purpose.arm"] is config["purpose.sweep_id"] is None
    assert config["purpose.stage"] == "train"


def test_settings_of_a_run_that_was_not_made_here_are_not_taken(trained, tiny):
    path = trained / "r/config.yaml"
    path.write_text(path.read_text() + "# changed\n")
    with pytest.raises(UserError, match=r"was not made here.*--warm_start .*last\.ckpt"):
        settings(["--warm_start", "r"])
    # Its weights are data.
    settings(["--config", tiny, "--warm_start", str(trained / "r/checkpoints/last.ckpt")])


def test_what_is_neither_a_run_nor_a_checkpoint_is_refused(trained, refused):
    said = refused("fit", "--warm_start", "nothing")
    assert said.startswith("there is no checkpoint nothing, and there is no run 'nothing': give")
    (trained.parent / "again").symlink_to(trained)
    assert "several runs are named r" in refused("fit", "--warm_start", "r")


def test_a_resumed_run_keeps_its_origin(trained, tiny):
    main(["fit", "--warm_start", "r", "--run_id", "new"])
    path = trained / "new/run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "status": "interrupted"}))
    main(["fit", "--resume", "new"])
    assert json.loads(path.read_text())["warm_start"] == record["warm_start"] is not None
