"""`bcl test` and `bcl validate`: which weights, and what is added to a record."""

import pytest

from bclightning.cli.main import main
from bclightning.runs.record import RunRecord

RUNS = ("results", "runs", "digits")


def record(runs, name: str) -> RunRecord:
    return RunRecord.read(runs.joinpath(*RUNS, name, "run.json"))


@pytest.mark.parametrize("weights", ["binary", "real", "ensemble"])
def test_a_test_with_the_weights_of_one_kind(runs, capsys, weights):
    main(["test", "--run", "stochastic", "--eval-weights", weights])
    said = capsys.readouterr().out
    rows = [line for line in said.splitlines() if f" {weights} " in line]
    assert len(rows) == 2
    assert not any(f" {other} " in said for other in {"binary", "real", "ensemble"} - {weights})


def test_what_a_record_does_not_have_is_added_to_it(runs):
    """An ensemble's errors, with its size; what is there stays, and so does what was tried."""
    before = record(runs, "stochastic").test
    main(["test", "--run", "stochastic", "--eval-weights", "real"])
    words = ["test", "--run", "stochastic", "--eval-weights", "ensemble"]
    main([*words, "--data.batch_size", "20"])
    (runs / "more.yaml").write_text("data:\n  init_args:\n    batch_size: 20\n")
    main([*words, "-c", "more.yaml"])
    main(["validate", "--run", "stochastic", "--eval-weights", "ensemble"])
    assert record(runs, "stochastic").test == before
    main([*words, "--ensemble-size", "3"])
    after = record(runs, "stochastic").test
    assert after[:-2] == before
    assert [(e["weights"], e["batch_norm"], e["ensemble_size"]) for e in after[-2:]] == [
        ("ensemble", "as trained", 3),
        ("ensemble", "re-estimated", 3),
    ]
    main(words)
    assert record(runs, "stochastic").test == after


@pytest.mark.parametrize("what", ["filelock.FileLock.acquire", "tempfile.mkstemp"])
def test_results_are_shown_where_nothing_may_be_written(runs, capsys, monkeypatch, what):
    def readonly(*_, **__):
        raise OSError(30, "Read-only file system")

    before = record(runs, "stochastic").test
    monkeypatch.setattr(what, readonly)
    words = ["test", "--run", "stochastic", "--eval-weights", "ensemble", "--ensemble-size", "2"]
    main(words)
    said = capsys.readouterr().out
    assert len([line for line in said.splitlines() if " ensemble " in line]) == 2
    assert "they are not added to the run's record: " in said
    assert "Read-only file system" in said
    assert record(runs, "stochastic").test == before


def test_what_two_tests_add_at_once_is_not_lost(runs, monkeypatch):
    """While one evaluates, another one adds its results."""
    words = ["test", "--run", "stochastic", "--eval-weights", "ensemble", "--ensemble-size", "2"]
    path = runs.joinpath(*RUNS, "stochastic", "run.json")
    ours = record(runs, "stochastic")
    ours.test = [entry for entry in ours.test if entry["weights"] == "real"]
    ours.write(path)
    from bclightning.cli import evaluate as command

    real, waiting = command.evaluate, [True]

    def evaluate(*arguments):
        if waiting:
            waiting.clear()
            main(["test", "--run", "stochastic", "--eval-weights", "binary"])
        return real(*arguments)

    monkeypatch.setattr(command, "evaluate", evaluate)
    main(words)
    kinds = [entry["weights"] for entry in record(runs, "stochastic").test]
    assert sorted(kinds) == ["binary"] * 2 + ["ensemble"] * 2 + ["real"] * 2


def test_a_larger_ensemble_is_another_one_and_the_same_twice(runs):
    from bclightning.runs.config import RunConfig
    from bclightning.runs.evaluate import evaluate
    from bclightning.runs.rebuild import rebuild

    network = rebuild(RunConfig.from_run("stochastic"))

    def errors(size: int):
        given = (network.model, network.data, network.trainer, "test", network.test_metric)
        return [r.value for r in evaluate(*given, network.make_trainer, "ensemble", size)]

    assert errors(2) == errors(2)
    assert errors(1) != errors(6)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["stochastic", "--eval-weights", "sign"],
            "--eval_weights: 'sign' is not one of 'binary', 'real', 'ensemble'",
        ),
        (["stochastic", "--ensemble-size", "3"], "for --eval_weights ensemble"),
        (
            ["stochastic", "--eval-weights", "ensemble", "--ensemble-size", "0"],
            "--ensemble_size is a positive number",
        ),
        (["none", "--eval-weights", "ensemble"], "Classifier has no binary weights"),
    ],
)
def test_weights_that_there_are_not_are_refused(runs, refused, words, sentence):
    assert sentence in refused("test", "--run", *words)
