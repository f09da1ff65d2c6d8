"""A sweep's search on its page: every trial in the table, and in the figure where it belongs."""

import contextlib
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bclightning.cli.main import main
from bclightning.compare import trials as search
from bclightning.compare.figures import COLOURS
from bclightning.errors import UserError
from bclightning.runs.record import RunRecord
from bclightning.sweep.definition import Definition

DIGITS = Path(__file__).parents[2] / "results" / "digits"

SWEEP = Definition.parse(
    {
        "recipe": "digits.yaml",
        "methods": ["none", "dropout"],
        "space": {
            "model.learning_rate": {"low": 1e-4, "high": 1.0, "log": True},
            "model.network.dropout": {"choices": [0.2, 0.5]},
        },
        "trials": 2,
    },
    "mine",
)


def trial(method: str, number: int, rate: float, error: float | None) -> RunRecord:
    return RunRecord(
        run_id=f"{method}-t{number}",
        experiment="mine",
        method=method,
        data="digits",
        seed=0,
        arm=method,
        stage="tune",
        trial=number,
        status="failed" if error is None else "finished",
        reason="the loss is nan, from step 3 on" if error is None else "",
        validation_error=error,
        settings={"model.learning_rate": rate, "model.network.init_args.dropout": 0.5},
    )


TRIALS = [
    trial("dropout", 1, 0.01, 3.0),
    trial("none", 1, 0.01, None),
    trial("none", 0, 0.1, 2.5),
    trial("dropout", 0, 0.1, 4.0),
]


def test_the_table_has_each_trial_in_the_methods_order(tmp_path):
    search.keep(tmp_path, [*TRIALS, RunRecord("f", "mine", "none", "digits", 1)], SWEEP)
    assert (tmp_path / "trials.csv").read_text().splitlines() == [
        "method,trial,status,validation_error,model.learning_rate,model.network.dropout,reason",
        "none,0,finished,2.5,0.1,0.5,",
        'none,1,failed,,0.01,0.5,"the loss is nan, from step 3 on"',
        "dropout,0,finished,4.0,0.1,0.5,",
        "dropout,1,finished,3.0,0.01,0.5,",
    ]
    assert [set(read.settings) for read in search.read(tmp_path)] == [set(SWEEP.space)] * 4
    before = (tmp_path / "trials.csv").read_bytes()
    # A page that is made of itself has no trials any more, and keeps their table.
    search.keep(tmp_path, [], SWEEP)
    assert (tmp_path / "trials.csv").read_bytes() == before
    text = "\n".join(search.section(tmp_path))
    assert "4 trials (1 failed, 3 finished)" in text
    assert "crosses are trials that did not finish" in text


def test_the_figure_joins_a_methods_trials_and_crosses_out_what_failed(tmp_path):
    search.keep(tmp_path, TRIALS, SWEEP)
    figure = search.figure(tmp_path, SWEEP, ["none", "dropout"])
    rates, rules = figure.axes
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in rates.lines]
    assert drawn == [([0.1], [2.5]), ([0.01], [0.98]), ([0.01, 0.1], [3.0, 4.0]), ([], [])]
    assert (rates.get_xlabel(), rates.get_xscale()) == ("model.learning_rate", "log")
    # A method has the colour of its row in the table, here and in the other figures.
    (other, _) = search.figure(tmp_path, SWEEP, ["dropout", "none"]).axes
    assert other.lines[0].get_color() == rates.lines[0].get_color() == COLOURS[0]
    assert list(other.lines[0].get_xdata()) == [0.01, 0.1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["none", "dropout"]
    # What has no order is not joined.
    assert rules.lines[2].get_linestyle() == "None"
    assert list(rules.lines[2].get_xdata()) == ["0.5", "0.5"]


def test_without_a_search_there_is_nothing_to_show(tmp_path):
    assert search.read(tmp_path) == search.section(tmp_path) == []


@given(st.text(st.sampled_from('a1.,\n\r\0"\ud800é-'), max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_table_is_told_and_never_a_traceback(tmp_path, text):
    header = "method,trial,status,validation_error,x\n"
    (tmp_path / "trials.csv").write_bytes((header + text).encode("utf-8", "surrogatepass"))
    with contextlib.suppress(UserError):
        search.read(tmp_path)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda p: (p / "search.png").unlink(), "search.png is missing"),
        (lambda p: edit(p / "trials.csv", "finished,1", "finished,2"), "drawn from other data"),
        (lambda p: edit(p / "trials.csv", "finished", "failed"), "differs from its records"),
        (lambda p: (p / "trials.csv").write_text("a,b\n1,2\n"), "not a table of trials"),
    ],
)
def test_a_page_that_its_trials_do_not_bear_out_is_refused(folder, refused, harm, said):
    page = folder / "results" / "digits"
    shutil.copytree(DIGITS, page)
    main(["compare", "--check", str(page)])
    harm(page)
    assert said in refused("compare", "--check", str(page))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
