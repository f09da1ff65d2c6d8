"""A sweep's search on its page: every trial in the table, and in the figure where it belongs."""

import contextlib
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bclightning.cli.main import main
from bclightning.compare.arms import Arm, Comparison
from bclightning.compare.comparison import compare
from bclightning.compare.drawing import COLOURS, MARKERS, arm_styles
from bclightning.compare.loading import gather
from bclightning.compare.metric import Metric
from bclightning.compare.trials import (
    TRIALS as TABLE,
)
from bclightning.compare.trials import (
    draw_trials,
    read_trials,
    trials_digest,
    trials_section,
    write_trials,
)
from bclightning.errors import UserError
from bclightning.runs.record import RunRecord
from bclightning.sweep.definition import Definition
from bclightning.vocabulary import REGULARIZERS

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


ERROR = Metric("val/error", "min")
ACCURACY = Metric("val_acc", "max")


def compared(*labels: str, monitor: Metric = ERROR) -> Comparison:
    """A comparison of arms in this order."""
    arms = tuple(
        Arm(label, (RunRecord(f"{label}-s1", "mine", label, "digits", 1),), None)
        for label in labels
    )
    return Comparison("digits", monitor, Metric("test/error"), arms, (), (), "test", {}, ())


def trial(arm: str, number: int, rate: float, error: float | None) -> RunRecord:
    return RunRecord(
        run_id=f"{arm}-t{number}",
        experiment="mine",
        regularizer=arm,
        data="digits",
        seed=0,
        arm=arm,
        stage="tune",
        trial=number,
        status="failed" if error is None else "finished",
        reason="the loss is nan, from step 3 on" if error is None else "",
        best_score=error,
        hyperparameters={"model.learning_rate": rate, "model.network.init_args.dropout": 0.5},
    )


TRIALS = [
    trial("dropout", 1, 0.01, 3.0),
    trial("none", 1, 0.01, None),
    trial("none", 0, 0.1, 2.5),
    trial("dropout", 0, 0.1, 4.0),
]


def test_the_table_has_each_trial_in_the_arms_order(tmp_path):
    write_trials(tmp_path, [*TRIALS, RunRecord("f", "mine", "none", "digits", 1)], SWEEP)
    assert (tmp_path / "trials.csv").read_text().splitlines() == [
        "arm,trial,status,best_score,model.learning_rate,model.network.dropout,reason",
        "none,0,finished,2.5,0.1,0.5,",
        'none,1,failed,,0.01,0.5,"the loss is nan, from step 3 on"',
        "dropout,0,finished,4.0,0.1,0.5,",
        "dropout,1,finished,3.0,0.01,0.5,",
    ]
    assert [set(read.searched) for read in read_trials(tmp_path)] == [set(SWEEP.space)] * 4
    before = (tmp_path / "trials.csv").read_bytes()
    # A page that is made of itself has no trials any more, and keeps their table.
    write_trials(tmp_path, [], SWEEP)
    assert (tmp_path / "trials.csv").read_bytes() == before
    text = "\n".join(trials_section(tmp_path, ERROR))
    assert "4 trials (1 failed, 3 finished)" in text
    assert "crosses, above, are trials that did not finish" in text


def drawn(axes, what) -> list:
    """The lines of the trials, of the chosen ones or of the unfinished ones, by arm."""
    return [line for line in axes.lines if line.get_gid() == what]


def points(axes, what) -> list:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in drawn(axes, what)]


def test_the_figure_has_each_trial_rings_the_chosen_and_crosses_out_what_failed(tmp_path):
    write_trials(tmp_path, TRIALS, SWEEP)
    figure = draw_trials(tmp_path, SWEEP, compared("none", "dropout"))
    rates, rules = figure.axes
    assert points(rates, "trials") == [([0.1], [2.5]), ([0.1, 0.01], [4.0, 3.0])]
    assert points(rates, "unfinished") == [([0.01], [0.98]), ([], [])]
    assert points(rates, "chosen") == [([0.1], [2.5]), ([0.01], [3.0])]
    assert (rates.get_xlabel(), rates.get_xscale()) == ("model.learning_rate", "log")
    # Single runs are noisy, and a line from one to the next would tell of nothing.
    assert {line.get_linestyle() for line in drawn(rates, "trials")} == {"None"}
    # An arm has the colour of its place in the table, here and in the other figures.
    (other, _) = draw_trials(tmp_path, SWEEP, compared("dropout", "none")).axes
    assert other.lines[0].get_color() == rates.lines[0].get_color() == COLOURS[0]
    assert list(other.lines[0].get_xdata()) == [0.1, 0.01]
    # What marks mean is said in the figure itself.
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["none", "dropout", "chosen", "did not finish"]
    assert list(drawn(rules, "trials")[1].get_xdata()) == ["0.5", "0.5"]
    finished = [each for each in TRIALS if each.status == "finished"]
    write_trials(tmp_path, finished, SWEEP)
    figure = draw_trials(tmp_path, SWEEP, compared("none", "dropout"))
    assert "did not finish" not in [text.get_text() for text in figure.legends[0].get_texts()]


@pytest.mark.parametrize("page", ["digits", "mnist", "lr_scaling"])
def test_the_ring_is_around_the_setting_of_the_final_runs(page):
    folder = DIGITS.with_name(page)
    (comparison,) = compare([run.record for run in gather([str(folder)])])
    definition = Definition.read(folder / "sweep.yaml")
    (axes,) = draw_trials(folder, definition, comparison).axes
    rates = {
        arm.name: arm.runs[0].hyperparameters["model.learning_rate"] for arm in comparison.arms
    }
    labels = [line.get_label() for line in drawn(axes, "trials")]
    chosen = {
        label: float(xs[0]) for label, (xs, _) in zip(labels, points(axes, "chosen"), strict=True)
    }
    assert chosen == pytest.approx(rates)


def test_an_arms_colour_is_that_of_its_curve_whatever_the_sweeps_order(tmp_path):
    write_trials(tmp_path, TRIALS, SWEEP)
    for comparison in (compared("dropout", "none"), compared("none"), compared("dropout")):
        axes = draw_trials(tmp_path, SWEEP, comparison).axes[0]
        # In the order of the table and then others.
        order = dict.fromkeys([*(arm.label for arm in comparison.arms), *SWEEP.arms])
        lines = zip(order, drawn(axes, "trials"), drawn(axes, "unfinished"), strict=True)
        for place, (arm, values, crosses) in enumerate(lines):
            style = arm_styles(comparison, SWEEP.arms)[arm]
            assert values.get_label() == arm
            assert (values.get_color(), values.get_marker()) == (style.colour, style.marker)
            assert crosses.get_color() == style.colour
            assert style == arm_styles(comparison).get(arm, style)
            assert (style.colour, style.marker) == (COLOURS[place], MARKERS[place])


def test_a_metric_that_is_to_be_high_is_named_and_not_drawn_as_an_error(tmp_path):
    write_trials(tmp_path, TRIALS, SWEEP)
    rates, _ = draw_trials(tmp_path, SWEEP, compared("none", monitor=ACCURACY)).axes
    assert (rates.get_yscale(), rates.get_ylabel()) == ("linear", "val_acc")
    # The crosses have their room above the highest value.
    assert rates.get_ylim()[1] > 4.0 + 0.2 * (4.0 - 2.5)
    text = "\n".join(trials_section(tmp_path, ACCURACY))
    assert "*Best val_acc of the search's trials; each point is one run" in text
    assert "Validation error of the search's trials" in trials_section(tmp_path, ERROR)[2]
    assert trials_digest(tmp_path, ACCURACY) != trials_digest(tmp_path, ERROR)


def test_tables_of_version_0_1_0_are_read(tmp_path):
    write_trials(tmp_path, TRIALS, SWEEP)
    today = read_trials(tmp_path)
    path = tmp_path / TABLE
    header, *lines = path.read_text().splitlines()
    old = header.replace("arm,trial,status,best_score", "method,trial,status,validation_error")
    path.write_text("\n".join([old, *lines]) + "\n")
    assert read_trials(tmp_path) == today
    # The first tables had no reasons.
    cut = [line.rpartition(',"' if '"' in line else ",")[0] for line in [old, *lines]]
    path.write_text("\n".join(cut) + "\n")
    assert read_trials(tmp_path) == today
    assert [trial.arm for trial in read_trials(DIGITS)][::12] == list(REGULARIZERS)


def test_a_trial_of_which_the_table_tells_less_has_no_place_in_the_figure(tmp_path):
    failed = trial("none", 2, 0.1, None)
    failed.hyperparameters.clear()
    failed.reason = "\x1b[2J\ud800\nlost"
    # A record that names no trial is of none.
    stray = trial("none", 3, 0.1, 2.0)
    stray.trial = None
    write_trials(tmp_path, [*TRIALS, failed, stray], SWEEP)
    assert len(read_trials(tmp_path)) == 5
    assert r"none,2,failed,,,,\x1b[2J\ud800\nlost" in (tmp_path / "trials.csv").read_text()
    rates, _ = draw_trials(tmp_path, SWEEP, compared("none", "dropout")).axes
    assert points(rates, "unfinished")[0][0] == [0.01]


def test_without_a_search_there_is_nothing_to_show(tmp_path):
    assert read_trials(tmp_path) == trials_section(tmp_path, ERROR) == []


@pytest.mark.parametrize("score", ["best_score", "validation_error"])
@given(text=st.text(st.sampled_from('a1.,\n\r\0"\ud800é-'), max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_table_is_told_and_never_a_traceback(tmp_path, score, text):
    header = f"arm,trial,status,{score},x\n"
    (tmp_path / "trials.csv").write_bytes((header + text).encode("utf-8", "surrogatepass"))
    with contextlib.suppress(UserError):
        read_trials(tmp_path)


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
    main(["compare", str(page), "--write", str(page)])
    main(["compare", "--check", str(page)])
    harm(page)
    assert said in refused("compare", "--check", str(page))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
