"""`bcl test` and `bcl validate`: which weights, and what is added to a record."""

import pytest

from bclightning.cli.main import main
from bclightning.errors import MachineError
from bclightning.runs.folder import RunFolder
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


def test_results_are_shown_where_the_record_cannot_be_written(runs, capsys, monkeypatch):
    before = record(runs, "stochastic")
    before.test = []
    before.write(RunFolder.find("stochastic").record)

    def read_only(*_):
        raise MachineError("run.json cannot be written: Read-only file system")

    monkeypatch.setattr(RunRecord, "write", read_only)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(["test", "stochastic", "--eval_weights", "real"])
    said = capsys.readouterr()
    assert "test error" in said.out
    assert said.err == "bcl: run.json cannot be written: Read-only file system\n"
    assert stopped.value.code == 2


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
