"""On how many threads a run computes, and that a resumed or reproduced one computes on as many."""

import pytest
import torch
from stopped_runs import differences, stop_in_the_second_epoch

import bclightning.sweep
from bclightning.cli.main import main
from bclightning.data import Digits
from bclightning.models import MLP, ConvNet
from bclightning.runs import RunConfig, fit
from bclightning.runs.callbacks import SeedEachEpoch
from bclightning.runs.record import RunRecord
from bclightning.runs.threads import suits_one_thread
from bclightning.training import Classifier

RUNS = "results/runs/digits"


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    """As torch begins with on two cores, without a word of the user's."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def seen(monkeypatch):
    """The numbers of threads that epochs were trained on."""
    numbers = []
    monkeypatch.setattr(
        SeedEachEpoch, "on_train_epoch_end", lambda *_: numbers.append(torch.get_num_threads())
    )
    return numbers


def recorded(folder) -> int:
    return RunRecord.read(folder / RUNS / "r/run.json").machine["threads"]


@pytest.mark.parametrize(
    ("words", "variable", "threads"),
    [
        ([], None, 1),
        (["--threads", "2"], None, 2),
        ([], "2", 2),
        (["--threads", "1"], "2", 1),
        (["--model.network.hidden=[8192]", "--trainer.max_epochs=1"], None, 2),
    ],
    ids=["small", "option", "environment", "both", "large"],
)
def test_what_is_asked_for_counts_and_else_the_size(
    folder, tiny, seen, monkeypatch, words, variable, threads
):
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    limit = "--trainer.limit_train_batches=2"
    main(["fit", "--config", tiny, limit, "--run_id", "r", *words])
    assert set(seen) == {threads}
    assert recorded(folder) == threads
    # A program that calls it has as many as before.
    assert torch.get_num_threads() == 2


def test_a_resumed_and_a_reproduced_run_have_the_recorded_number(
    folder, tiny, monkeypatch, refused
):
    words = ["fit", "--config", tiny, "--threads", "2"]
    main([*words, "--run_id", "whole"])
    stop_in_the_second_epoch(*words, "--run_id", "r")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    said = refused("fit", "--resume", "r", "--threads", "1")
    assert said.startswith("the run has computed on 2 threads")
    numbers = []
    monkeypatch.setattr(
        SeedEachEpoch, "on_train_epoch_end", lambda *_: numbers.append(torch.get_num_threads())
    )
    main(["fit", "--resume", "r"])
    main(["reproduce", "r", "--epochs", "1"])
    assert numbers == [2, 2, 2]
    assert recorded(folder) == 2
    assert differences(folder / RUNS / "r", folder / RUNS / "whole") == []


def test_a_number_that_is_none_is_refused(folder, tiny, refused):
    assert "--threads must be at least 1" in refused("fit", "--config", tiny, "--threads", "0")


def test_what_cannot_be_counted_is_not_small(folder):
    class Loaded(Digits):
        pass

    assert suits_one_thread(Classifier(MLP(64, [256])), Loaded())
    assert not suits_one_thread(Classifier(torch.nn.Bilinear(2, 2, 2)), Digits())
    assert not suits_one_thread(Classifier(ConvNet(8, 1, [64, 128])), Digits(batch_size=1000))
    config = RunConfig.load({"model": "own_modules.Regression", "data": "own_modules.Table"})
    built = config.build()
    assert not suits_one_thread(built.model, built.data)


def test_as_a_function_it_takes_threads(folder, tiny):
    record = fit(RunConfig.load(tiny, {"trainer.max_epochs": 1}), threads=2)
    assert record.machine["threads"] == 2


def test_a_sweeps_workers_compute_on_as_many_as_it_says(folder, tiny):
    definition = {"name": "mine", "recipe": tiny, "arms": ["none"], "final_seeds": 1}
    definition["overrides"] = {"trainer.max_epochs": 1}
    (record,) = bclightning.sweep(definition, threads=2)
    assert record.machine["threads"] == 2
