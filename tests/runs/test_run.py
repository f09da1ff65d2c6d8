"""A run from its command line to its record."""

import json
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import torch
import yaml

import bclightning.runs.run as fit
from bclightning.cli.main import main
from bclightning.evaluation import default_evaluation
from bclightning.runs.metrics_csv import MetricsTable
from bclightning.runs.record import RunRecord
from bclightning.sweep.definition import Definition
from bclightning.sweep.running import default_storage

REAL = {("real", "as trained"), ("real", "re-estimated")}
BINARY = {("binary", "as trained"), ("binary", "re-estimated")}


@pytest.mark.parametrize(
    ("method", "judged", "chosen"),
    [
        ("none", REAL, ("real", "as trained")),
        ("dropout", REAL, ("real", "as trained")),
        ("deterministic", REAL | BINARY, ("binary", "as trained")),
        ("stochastic", REAL | BINARY, ("real", "re-estimated")),
    ],
)
def test_each_method_trains_and_is_judged(folder, tiny, capsys, method, judged, chosen):
    main(["fit", "--config", tiny, "--model.network.regularizer", method, "--run_id", "r"])
    run = folder / "results" / "runs" / "digits" / "r"
    record = RunRecord.read(run / "run.json")
    assert (record.regularizer, record.data, record.seed) == (method, "digits", 0)
    assert record.status == "finished"
    assert {(e["weights"], e["batch_norm"]) for e in record.test} == judged
    assert tuple(record.evaluation.values()) == chosen
    assert record.test_value < 60  # chance is 90
    assert record.split_sizes == {"train": 1197, "val": 300, "test": 300}
    said = capsys.readouterr().out
    device, data, network, *_ = said.splitlines()
    assert re.fullmatch(r"device   cpu: .*, \d+ threads?( \(--threads for more\))?", device)
    assert data == "data     digits: 1,197 training, 300 validation, 300 test images"
    name = {"none": "no regularizer"}.get(method, method)
    bits = "1,184 weights of 1 bit, 52 of 32 bits" if judged > REAL else "1,236 weights of 32 bits"
    assert network == f"network  MLP, {name}: {bits}"
    assert said.splitlines()[-1] == "bcl export r"
    for part in (
        f"{record.test_value:.2f} % *",
        "best epoch",
        "in fp32",
        str(run.relative_to(folder)),
    ):
        assert part in said


def test_pixels_dropped_besides_make_no_other_method(folder, tiny):
    words = ["--trainer.max_epochs", "1", "--model.network.input_dropout", "0.2", "--run_id"]
    for method in ("none", "dropout", "stochastic"):
        main(["fit", "--config", tiny, *words, method, "--model.network.regularizer", method])
        assert (
            RunRecord.read(folder / f"results/runs/digits/{method}/run.json").regularizer == method
        )


def test_runs_by_hand_are_kept_apart_from_the_sweep_of_their_data(folder, tiny):
    """A sweep is named digits, as its definition is, and its folder is what is compared."""
    content = yaml.safe_load(Path(tiny).read_text())
    del content["experiment"]
    Path("digits.yaml").write_text(yaml.safe_dump(content))
    words = ["fit", "--config", "./digits.yaml", "--trainer.max_epochs", "1", "--run_id"]
    main([*words, "r"])
    main([*words, "named", "--experiment", "digits"])
    runs = Path("results/runs")
    found = {str(path.parent.relative_to(runs)) for path in runs.glob("*/*/run.json")}
    assert found == {"digits-fit/r", "digits/named"}
    assert RunRecord.read(runs / "digits-fit/r/run.json").experiment == "digits-fit"
    # Named by hand, and so by runs of older versions, it stays.
    main(["fit", "--resume", "named"])
    assert default_storage(Definition.load("digits"), runs).endswith("digits/storage.db")


def test_the_epoch_with_the_best_validation_error_is_the_one_that_is_tested(folder, tiny):
    main(["fit", "--config", tiny, "--trainer.max_epochs", "6", "--run_id", "r"])
    run = folder / "results" / "runs" / "digits" / "r"
    record = RunRecord.read(run / "run.json")
    errors = [row["val/error"] for row in MetricsTable(run / "metrics.csv").rows]
    assert len(errors) == 6
    # Ties go to the later epoch.
    assert record.best_epoch == max(e for e, error in enumerate(errors) if error == min(errors))
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == record.best_epoch
    assert record.best_score == errors[record.best_epoch]


def test_a_run_is_rebuilt_from_its_own_configuration(folder, tiny, capsys):
    main(["fit", "--config", tiny, "--run_id", "r", "--model.network.hidden", "[12]"])
    config = yaml.safe_load((folder / "results/runs/digits/r/config.yaml").read_text())
    assert config["model"]["network"]["init_args"]["hidden"] == [12]
    record = RunRecord.read(folder / "results/runs/digits/r/run.json")
    capsys.readouterr()
    for run in ("r", "results/runs/digits/r"):
        main(["test", "--run", run])
        said = capsys.readouterr().out
        for entry in record.test:
            assert f"{entry['value']:.2f} %" in said
    main(["validate", "--run", "r"])
    assert f"{record.best_score:.2f} % " in capsys.readouterr().out


def test_predictions_are_those_of_the_chosen_method(folder, tiny):
    main(["fit", "--config", tiny, "--run_id", "r"])
    main(["predict", "--run", "r", "--output", "classes.csv"])
    lines = (folder / "classes.csv").read_text().splitlines()
    assert lines[0].startswith("image,class,score 0,")
    predicted = [line.split(",")[1] for line in lines[1:]]
    from bclightning.data import Digits

    labels = [str(int(label)) for label in Digits().loaded_splits()["test"].labels]
    wrong = sum(p != t for p, t in zip(predicted, labels, strict=True))
    record = RunRecord.read(folder / "results/runs/digits/r/run.json")
    assert 100 * wrong / 300 == pytest.approx(record.test_value)


def test_a_network_that_several_processes_trained_is_shown_every_image(folder, tiny):
    main(["fit", "--config", tiny, "--run_id", "r"])
    main(["predict", "--run", "r"])
    expected = (folder / "predictions.csv").read_text()
    config = folder / "results/runs/digits/r/config.yaml"
    text = config.read_text().replace("devices: 1", "devices: 2")
    config.write_text(text.replace("strategy: auto", "strategy: ddp"))
    command = [sys.executable, "-m", "bclightning", "predict", "r", "--output", "two.csv"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert (folder / "two.csv").read_text() == expected
    assert len(expected.splitlines()) == 1 + 300


def test_the_same_seed_gives_the_same_run_and_another_seed_another(folder, tiny):
    for run_id, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        main(["fit", "--config", tiny, "--run_id", run_id, "--seed_everything", seed])
    tables = [(folder / f"results/runs/digits/{r}/metrics.csv").read_bytes() for r in "abc"]
    assert tables[0] == tables[1] != tables[2]


def test_runs_that_begin_in_the_same_second_do_not_meet(folder, tiny, monkeypatch):
    class Stopped(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.setattr(fit, "datetime", Stopped)
    for _ in range(2):
        main(["fit", "--config", tiny])
    names = [run.name for run in (folder / "results/runs/digits").iterdir()]
    assert len(names) == 2
    assert {name[:-4] for name in names} == {"digits-stochastic-s0-20260102-030405-"}


def test_statistics_of_the_weights_are_among_the_metrics(folder, tiny):
    main(["fit", "--config", tiny, "--run_id", "r"])
    rows = MetricsTable(folder / "results/runs/digits/r/metrics.csv").rows
    for row in rows:
        assert {"train/loss", "val/loss", "val/error", "learning_rate"} <= set(row)
        for layer in ("hidden.0.linear", "output.linear"):
            assert 0 <= row[f"flip_ratio/{layer}"] < 0.5
            assert 0 <= row[f"saturation/{layer}"] < 0.5
    # The rate decays, and fewer and fewer signs flip.
    flips = [row["flip_ratio/hidden.0.linear"] for row in rows]
    assert flips[0] > flips[1] > flips[2]
    assert rows[0]["learning_rate"] == pytest.approx(1e-2)
    decay = (3e-6 / 1e-2) ** (1 / 3)
    assert rows[2]["learning_rate"] == pytest.approx(1e-2 * decay**2)


def test_the_last_learning_rate_may_be_a_fraction_of_the_first(folder, tiny):
    rates = ["--model.learning_rate", "0.5", "--model.end_factor", "0.01"]
    main(["fit", "--config", tiny, "--run_id", "r", "--trainer.max_epochs", "2", *rates])
    rows = MetricsTable(folder / "results/runs/digits/r/metrics.csv").rows
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.5, 0.05])


def test_a_float_network_is_a_warm_start_for_a_binary_one(folder, tiny):
    real = ["--model.network.regularizer", "none", "--model.learning_rate", "0.01"]
    main(["fit", "--config", tiny, "--run_id", "real", *real])
    checkpoint = folder / "results/runs/digits/real/checkpoints/best.ckpt"
    errors = {}
    slow = ["--trainer.max_epochs", "1", "--model.learning_rate", "1e-5"]
    slow += ["--model.final_learning_rate", "1e-6", "--model.network.regularizer", "deterministic"]
    for run_id, warm in (("cold", []), ("warm", ["--warm_start", str(checkpoint)])):
        main(["fit", "--config", tiny, "--run_id", run_id, *slow, *warm])
        record = json.loads((folder / f"results/runs/digits/{run_id}/run.json").read_text())
        errors[run_id] = record["best_score"]
    # One epoch of tiny steps teaches nothing by itself.
    assert errors["warm"] < errors["cold"] - 20


def test_validation_every_other_epoch_chooses_among_the_validated(folder, tiny):
    every = ["--trainer.max_epochs", "3", "--trainer.check_val_every_n_epoch", "2"]
    main(["fit", "--config", tiny, "--run_id", "r", *every])
    rows = MetricsTable(folder / "results/runs/digits/r/metrics.csv").rows
    assert ["val/error" in row for row in rows] == [False, True, False]
    assert RunRecord.read(folder / "results/runs/digits/r/run.json").best_epoch == 1


def test_several_configurations_are_merged_and_the_last_word_wins(folder, tiny, capsys):
    (folder / "more.yaml").write_text(
        "trainer:\n  max_epochs: 7\ndata:\n  init_args:\n    batch_size: 60\n"
    )
    words = ["--config", tiny, "--config", "more.yaml", "--data.batch_size", "70"]
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *words, "--print_config"])
    assert stopped.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["trainer"]["max_epochs"] == 7
    assert config["data"]["init_args"]["batch_size"] == 70
    assert config["model"]["init_args"]["network"]["init_args"]["hidden"] == [16]


@pytest.fixture
def own(folder, monkeypatch):
    """A user's own network and data, and a configuration of both."""
    (folder / "own.py").write_text(
        "import torch\n"
        "from lightning.pytorch import LightningDataModule\n"
        "from torch.utils.data import DataLoader, TensorDataset\n"
        "class Net(torch.nn.Sequential):\n"
        "    def __init__(self, width: int = 8):\n"
        "        super().__init__(torch.nn.Linear(4, width), torch.nn.BatchNorm1d(width),\n"
        "                         torch.nn.Linear(width, 2))\n"
        "class Data(LightningDataModule):\n"
        "    def loader(self):\n"
        "        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))\n"
        "        return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 16)\n"
        "    train_dataloader = val_dataloader = test_dataloader = loader\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    (folder / "own.yaml").write_text(
        "trainer:\n"
        "  max_epochs: 20\n"
        "  accelerator: cpu\n"
        "  callbacks:\n"
        "  - class_path: bclightning.training.BinaryConnect\n"
        "    init_args: {binarization: deterministic}\n"
        "model:\n"
        "  network: {class_path: own.Net, init_args: {width: 16}}\n"
        "  learning_rate: 0.01\n"
        "data: {class_path: own.Data}\n"
        "wandb: {mode: disabled}\n"
    )
    yield folder / "own.py"
    sys.modules.pop("own", None)


def test_a_network_and_data_of_the_users_own(folder, own):
    main(["fit", "--config", "own.yaml", "--run_id", "r"])
    record = RunRecord.read(folder / "results/runs/data-fit/r/run.json")
    assert record.regularizer == "deterministic"
    assert record.binary_weights == 16 * 6
    assert record.evaluation == {"weights": "binary", "batch_norm": "as trained"}
    assert record.test_value < 15


def test_data_without_a_test_are_trained_on_and_not_tested(folder, own, capsys, refused):
    own.write_text(own.read_text().replace("= test_dataloader", ""))
    main(["fit", "--config", "own.yaml", "--run_id", "r", "--trainer.max_epochs", "2"])
    assert "no test: Data has no test_dataloader" in capsys.readouterr().out
    record = RunRecord.read(folder / "results/runs/data-fit/r/run.json")
    assert (record.status, record.test) == ("finished", [])
    assert record.best_score is not None
    assert "Data has no test_dataloader; define one" in refused("test", "--run", "r")
    assert "Data has no predict_dataloader" in refused("predict", "--run", "r")


def test_w_and_b_sees_method_data_seed_and_results(folder, tiny):
    from pathlib import Path

    main(["fit", "--config", tiny, "--run_id", "r", "--wandb.mode", "offline"])
    (run,) = (folder / "results/runs/digits/wandb").glob("offline-run-*")
    wandb = Path(sys.executable).with_name("wandb")
    inspect = [str(wandb), "leet", "inspect", "--summary", "--json", str(run)]
    shown = json.loads(subprocess.run(inspect, capture_output=True, check=True).stdout)
    assert {"regularizer:stochastic", "data:digits", "seed:0"} <= set(shown["tags"])
    assert shown["config"]["regularizer"] == "stochastic"
    assert shown["config"]["hidden"] == [16]
    assert shown["config"]["details"]["settings"]["model"]["optimizer"] == "adam"
    record = RunRecord.read(folder / "results/runs/digits/r/run.json")
    assert shown["summary"]["test/error_pct"] == pytest.approx(record.test_value)
    assert shown["summary"]["_epoch"] == 3
    assert "weights/1_histogram/hidden_0_linear" in shown["summary"]
    assert list(run.glob("files/media/images/weights/1_features*.png"))


def test_the_chosen_method_of_a_network_without_binary_weights_is_its_own():
    assert default_evaluation(torch.nn.Linear(2, 2)) == ("real", "as trained")


def test_the_statistics_of_the_test_are_those_that_chose_the_epoch(folder, tiny, monkeypatch):
    """One rule for which images batch norm is re-estimated from, in a run and in `bcl test`."""
    from bclightning.data import Digits
    from bclightning.training.batch_norm import STATISTICS_IMAGES

    limits, loader = [], Digits.statistics_dataloader

    def noted(self, limit=None):
        limits.append(limit)
        return loader(self, limit)

    monkeypatch.setattr(Digits, "statistics_dataloader", noted)
    stochastic = ["--model.network.regularizer", "stochastic", "--run_id", "r"]
    main(["fit", "--config", tiny, "--trainer.max_epochs", "2", *stochastic])
    main(["test", "r"])
    main(["predict", "r"])
    # Twice in training, once for all evaluation weights of each test, once to predict.
    assert limits == [STATISTICS_IMAGES] * 5
