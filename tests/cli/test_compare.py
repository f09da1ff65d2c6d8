"""What `bcl compare` prints: which runs, arms and columns, and who won."""

import csv
import io
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len

from bclightning.cli.main import main
from bclightning.runs.record import RunRecord

RESULTS = Path(__file__).parents[2] / "results"


def run(arm="none", seed=1, error=2.0, rate=0.001, **more) -> RunRecord:
    binary = arm in ("deterministic", "stochastic")
    evaluation = {"weights": "binary" if binary else "real", "batch_norm": "as trained"}
    record = RunRecord(
        run_id=f"{arm}-s{seed}",
        experiment="e",
        regularizer=arm,
        data="digits",
        seed=seed,
        epochs=10,
        stage="final",
        status="finished",
        best_epoch=seed,
        best_score=error + 0.5,
        evaluation=evaluation,
        test=[{**evaluation, "value": error}],
        hyperparameters={"model.learning_rate": rate, "model.network.regularizer": arm},
        binary_weights=1000 if binary else 0,
        real_weights=10 if binary else 1010,
        float_bytes=4_040_000,
        packed_bytes=160_000 if binary else 4_040_000,
        train_seconds=60.0,
    )
    return replace(record, **more)


@pytest.fixture
def runs(folder):
    """A sweep of two arms: four final runs of each, and two trials."""
    records = [
        *(run("none", seed, 2 + seed / 10, rate=0.0019623) for seed in range(1, 5)),
        *(run("deterministic", seed, 2.1 + seed / 10, rate=0.0091) for seed in range(1, 5)),
        *(
            run(arm, 0, rate=rate, run_id=f"{arm}-t{number}", stage="tune", trial=number, test=[])
            for arm, rates in (("none", (0.5, 0.0019623)), ("deterministic", (0.5, 0.0091)))
            for number, rate in enumerate(rates)
        ),
    ]
    for record in records:
        (folder / "runs" / record.run_id).mkdir(parents=True)
        record.write(folder / "runs" / record.run_id / "run.json")
    return folder / "runs"


def said(capsys, *words) -> str:
    main(["compare", *map(str, words)])
    return capsys.readouterr().out


@pytest.mark.parametrize("page", ["mnist", "digits", "cifar10", "lr_scaling"])
@pytest.mark.parametrize("margin", [(), ("--margin", "0.2")])
def test_tables_fit_80_columns_and_are_whole(page, margin, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = said(capsys, RESULTS / page, *margin)
    tables, _, _ = text.partition("The runs differ")
    assert max(map(cell_len, tables.splitlines())) <= 80
    assert "…" not in text
    markdown = said(capsys, RESULTS / page, *margin, "--format", "markdown")
    rows = [line for line in markdown.splitlines() if line.startswith("| ")]
    words = Counter(word for row in rows for word in row.split() if word != "|")
    found = Counter(tables.split())
    # Headings of two words may stand in two lines, but no word is cut or lost.
    assert not words - found
    # The first table has what is read first.
    first = text.split("\n\n")[0]
    assert re.search(r"test +error", first) or "test error" in " ".join(first.split())


def test_the_size_keeps_its_unit_and_p_its_digits(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = said(capsys, RESULTS / "digits")
    assert "0.01 MB" in text
    assert "0.1447" in text
    assert "paper" not in text


def test_what_the_search_chose_is_named(runs, capsys):
    for form in ("table", "markdown", "csv"):
        text = said(capsys, runs, "--format", form)
        assert "learning_rate" in text
        assert "0.001962" in text
        assert "0.0091" in text
    (comparison,) = json.loads(said(capsys, runs, "--format", "json"))
    settings = {arm["arm"]: arm["settings"] for arm in comparison["arms"]}
    assert settings["none"]["model.learning_rate"] == 0.0019623
    # Where both arms chose the same it is named too.
    for path in runs.glob("*/run.json"):
        path.write_text(path.read_text().replace("0.0091", "0.0019623"))
    assert said(capsys, runs).count("0.001962") == 2
    assert said(capsys, runs, "--filter", "stage=final").count("0.001962") == 2


def columns(text: str, form: str) -> list[str]:
    if form == "json":
        return list(json.loads(text)[0]["arms"][0])
    return next(csv.reader(io.StringIO(text)))


def test_columns_are_chosen_in_every_format(runs, capsys):
    words = (runs, "--columns", "arm,test_value,learning_rate", "--format")
    heading, _, none, *_ = said(capsys, *words, "markdown").splitlines()[2:]
    assert heading == "| arm | test error % | learning_rate |"
    assert none == "| none | 2.25 ± 0.13 | 0.001962 |"
    parts = [f"test_value_{part}" for part in ("mean", "std", "low", "high")]
    found = columns(said(capsys, *words, "csv"), "csv")
    assert found == ["arm", *parts, "model.learning_rate"]
    assert columns(said(capsys, *words, "json"), "json") == ["arm", "test_value", "settings"]
    table = said(capsys, *words, "table").split("\n\n")[0]
    assert table.split()[:6] == ["digits", "test", "error", "arm", "%", "learning_rate"]
    # What is asked for is shown without content, too, and all is all that has some.
    assert "paper %" in said(capsys, runs, "--columns", "arm,paper", "--format", "markdown")
    every = said(capsys, runs, "--columns", "all", "--format", "markdown")
    assert "| 32-bit size | runs |" in every
    assert "paper %" not in every
    assert "deterministic-s1, deterministic-s2" in every
    interval = said(capsys, runs, "--columns", "interval", "--format", "csv")
    assert interval.splitlines()[0] == "test_value_low,test_value_high"


def arms(text: str) -> list[str]:
    return [arm["arm"] for arm in json.loads(text)[0]["arms"]]


def test_arms_are_sorted_by_any_column(runs, capsys):
    def order(*words) -> list[str]:
        return arms(said(capsys, runs, "--format", "json", *words))

    assert order() == ["none", "deterministic"]
    assert order("--sort", "arm") == ["deterministic", "none"]
    assert order("--sort", "test_value") == ["none", "deterministic"]
    assert order("--sort", "test_value", "--reverse") == ["deterministic", "none"]
    assert order("--sort", "learning_rate", "--reverse") == ["deterministic", "none"]
    # Without a value an arm comes last, whichever way round.
    for words in ((), ("--reverse",)):
        assert order("--sort", "packed_bytes", *words)[1] == "none"
    text = said(capsys, runs, "--sort", "arm", "--format", "csv")
    assert [row[1] for row in csv.reader(io.StringIO(text))] == ["arm", "deterministic", "none"]


def test_runs_are_filtered_and_left_out_by_name(runs, capsys):
    for form in ("table", "markdown"):
        words = ("--filter", "regularizer=none", "--exclude", "none-s4", "--format", form)
        text = said(capsys, runs, *words)
        assert "2.20 ± 0.10" in text
        assert "deterministic" not in text.replace("regularizer", "")
        assert "Left out by --filter regularizer=none: 6 runs." in text
        assert "Left out by --exclude: none-s4." in text
    (comparison,) = json.loads(said(capsys, runs, "--filter", "seed>2", "--format", "json"))
    assert [arm["n"] for arm in comparison["arms"]] == [2, 2]
    assert comparison["notes"][0] == "Left out by --filter seed>2: 8 runs."


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("--columns", "arm,tset_value"),
            "--columns knows no column 'tset_value' (did you mean test_value?); there are arm, n, "
            "best_score, test_value, interval, one_bit_test_value, packed_bytes, "
            "model.learning_rate, model.network.regularizer, eval_weights, best_epoch, "
            "train_seconds, paper, float_bytes, runs",
        ),
        (("--sort", "error"), "--sort knows no column 'error'; there are arm, n, best_score"),
        (("--columns", ","), "--columns wants names"),
        (("--reverse",), "give --sort COLUMN too"),
        (("--filter", "seed"), "is not a condition"),
        (("--exclude", "none-s9"), "--exclude none-s9: there is no such run among those found"),
        (("--margin", "0"), "a margin of 0 is not a number above 0"),
        (("--margin", "nan"), "a margin of nan is not a number above 0"),
        (("--write", "p", "--exclude", "none-s1"), "--exclude cannot be combined with --write"),
        (("--write", "p", "--filter", "seed>1"), "--filter cannot be combined with --write"),
        (("--write", "p", "--sort", "arm"), "--sort does not change a page"),
    ],
)
def test_a_mistake_is_one_sentence(runs, refused, words, expected):
    told = refused("compare", str(runs), *words)
    assert expected in told
    assert told.strip().count("\n") == 0


def test_one_bit_is_held_against_float(runs, capsys):
    text = said(capsys, runs, "--format", "markdown")
    assert "**one bit against float**" in text
    heading, _, row = text[text.index("| arm | against | difference | 90") :].splitlines()[:3]
    assert heading.endswith("| times smaller | equivalent within |")
    assert row == "| deterministic | none | +0.10 | -0.08 to +0.28 | 25.2 | ±0.28 |"
    text = said(capsys, runs, "--margin", "0.5", "--format", "markdown")
    row = next(line for line in text.splitlines() if line.startswith("| deterministic | none | +"))
    assert "| equivalent | - | 25.2 | ±0.28 |" in row
    assert "Verdict for a margin of ±0.5 percentage points, at 5 %" in text
    (comparison,) = json.loads(said(capsys, runs, "--margin", "0.2", "--format", "json"))
    (pair,) = comparison["one_bit"]
    assert pair["verdict"] == "not settled"
    assert pair["seeds"] > 4
    assert f"| not settled | {pair['seeds']} |" in said(
        capsys, runs, "--margin", "0.2", "--format", "markdown"
    )
