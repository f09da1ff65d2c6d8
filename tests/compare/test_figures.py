"""Figures that can be read, whatever they show, and that know what they were drawn from."""

import contextlib
import hashlib
import itertools
import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from bclightning.compare.arms import Arm, Comparison
from bclightning.compare.comparison import compare
from bclightning.compare.drawing import (
    COLOURS,
    DPI,
    LINES,
    MARKERS,
    WIDTH,
    arm_styles,
    drawn_from,
    label_logarithmic,
    save,
    scale_values,
)
from bclightning.compare.figures import (
    FIGURES,
    curves,
    draw_figure,
    features,
    figure_digest,
    histograms,
)
from bclightning.compare.metric import Metric
from bclightning.errors import UserError
from bclightning.runs.folder import RunFolder
from bclightning.runs.record import RunRecord


@given(st.floats(1e-4, 50), st.floats(1.2, 1e6))
def test_a_logarithmic_axis_has_labels_enough_and_none_outside_of_it(low, ratio):
    axes = Figure().add_subplot()
    axes.set_yscale("log")
    axes.set_ylim(low, low * ratio)
    label_logarithmic(axes.yaxis)
    ticks = list(axes.yaxis.get_majorticklocs())
    assert 3 <= len(ticks) <= 15
    assert low <= min(ticks) <= max(ticks) <= low * ratio
    labels = axes.yaxis.get_major_formatter().format_ticks(ticks)
    assert len(set(labels)) == len(labels)
    assert list(axes.yaxis.get_minorticklocs()) == []


def test_narrow_and_wide_ranges_get_round_labels():
    def labels(low: float, high: float) -> list[str]:
        axes = Figure().add_subplot()
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        label_logarithmic(axes.xaxis)
        return axes.xaxis.get_major_formatter().format_ticks(axes.xaxis.get_majorticklocs())

    assert labels(13, 50) == ["15", "20", "25", "30", "40", "50"]
    assert labels(1.06, 1.27) == ["1.08", "1.12", "1.16", "1.2", "1.24"]
    assert labels(1e-4, 1e4) == [f"{10.0**exponent:g}" for exponent in range(-4, 5)]


def compared(folder, lines, *, monitor="val/error", mode="min", arms=("none", "dropout")):
    """Two runs of each arm with the same metrics, and their folders."""
    runs, folders = [], {}
    for arm in arms:
        for seed in (1, 2):
            run = RunRecord(f"{arm}-s{seed}", "e", arm, "digits", seed, status="finished")
            run = replace(run, monitor=monitor, monitor_mode=mode, best_epoch=1, best_score=0.5)
            path = folder / run.run_id
            path.mkdir(parents=True, exist_ok=True)
            (path / "metrics.csv").write_text("\n".join(lines) + "\n")
            histogram = {"edges": [-1, 0, 1], "counts": [1, 1], "weights": 2, "at_bounds": 0.0}
            (path / "first_layer.json").write_text(json.dumps(histogram))
            runs.append(run)
            folders[run.run_id] = RunFolder(path)
    (comparison,) = compare(runs)
    return comparison, folders


ERRORS = ("epoch,train/loss,val/error", "0,1.0,20", "1,0.5,10", "2,0.4,5")
ACCURACIES = ("epoch,val_acc", "0,0.5", "1,0.8", "2,0.9")


def test_validation_errors_are_drawn_as_they_were(tmp_path):
    comparison, folders = compared(tmp_path, ERRORS)
    errors, costs = curves(comparison, folders).axes
    assert (errors.get_yscale(), errors.get_ylabel()) == ("log", "validation error, %")
    assert (costs.get_yscale(), costs.get_ylabel()) == ("log", "training cost")
    assert [list(line.get_ydata()) for line in errors.lines] == [[20, 10, 5]] * 2
    assert [list(line.get_ydata()) for line in costs.lines] == [[1.0, 0.5, 0.4]] * 2
    assert FIGURES[0].caption(comparison, folders) == (
        "Validation error and training cost by epoch, means over seeds, the range over seeds "
        "shaded (figure 3 of the paper)."
    )


def test_any_metric_is_drawn_and_named(tmp_path):
    comparison, folders = compared(tmp_path, ACCURACIES, monitor="val_acc", mode="max")
    (axes,) = curves(comparison, folders).axes
    assert (axes.get_yscale(), axes.get_ylabel()) == ("linear", "val_acc")
    assert [list(line.get_ydata()) for line in axes.lines] == [[0.5, 0.8, 0.9]] * 2
    caption = FIGURES[0].caption(comparison, folders)
    assert caption == "By epoch: val_acc, means over seeds, the range over seeds shaded."
    # Lightning's usual name of the training loss is known too.
    lines = [f"{line},{end}" for line, end in zip(ACCURACIES, ("train_loss", 3, 2, 1), strict=True)]
    comparison, folders = compared(tmp_path, lines, monitor="val_acc", mode="max")
    _, costs = curves(comparison, folders).axes
    assert list(costs.lines[0].get_ydata()) == [3, 2, 1]
    assert FIGURES[0].caption(comparison, folders).startswith("Val_acc and training cost by epoch")


@pytest.mark.parametrize(("least", "scale"), [("0.1", "log"), ("0", "linear"), ("-1", "linear")])
def test_losses_are_drawn_by_their_logarithm_where_they_have_one(tmp_path, least, scale):
    lines = ("epoch,val_loss", "0,2.5", f"1,{least}")
    comparison, folders = compared(tmp_path, lines, monitor="val_loss")
    assert curves(comparison, folders).axes[0].get_yscale() == scale


def test_an_arm_has_one_colour_one_line_and_one_marker_in_all_figures(tmp_path):
    comparison, folders = compared(tmp_path, ERRORS, arms=("none", "dropout", "stochastic"))
    styles = arm_styles(comparison)
    errors, costs = curves(comparison, folders).axes
    for axes in (errors, costs):
        for line, label in zip(axes.lines, styles, strict=True):
            drawn = (line.get_color(), line.get_linestyle(), line.get_marker())
            assert drawn == (styles[label].colour, styles[label].line, styles[label].marker)
    bars = [axes.patches[0].get_facecolor() for axes in histograms(comparison, folders).axes]
    assert len(set(bars)) == 3
    for part in ("colour", "line", "marker"):
        assert len({getattr(style, part) for style in styles.values()}) == 3
    # Two arms of the same colour have other lines and markers.
    assert len({COLOURS, LINES, MARKERS}) == 3
    assert len({len(COLOURS), len(LINES), len(MARKERS)}) == 3


LONG = "stochastic, learning_rate=0.001962, input_dropout=0.25, max_epochs=50, width=0.125"


@pytest.fixture(scope="module")
def long_names(tmp_path_factory):
    """Seven settings of an arm, with as long a name each."""
    folder = tmp_path_factory.mktemp("long")
    comparison, folders = compared(folder, ERRORS, arms=[f"{n} {LONG}" for n in range(7)])
    for run in folders.values():
        Image.new("L", (91, 91)).save(run.features)
    return comparison, folders


@pytest.mark.parametrize("draw", [curves, histograms, features])
def test_long_names_fit_a_figure(long_names, draw, tmp_path):
    figures = []
    save(tmp_path / "a.png", lambda: figures.append(draw(*long_names)) or figures[0], "source")
    (figure,) = figures
    renderer = FigureCanvasAgg(figure).get_renderer()
    width, height = figure.get_size_inches() * DPI
    assert width <= WIDTH * DPI + 1
    titles = [axes.title for axes in figure.axes if axes.get_title()]
    boxes = [title.get_window_extent(renderer) for title in titles]
    texts = [text for legend in figure.legends for text in legend.get_texts()]
    boxes += [legend.get_window_extent(renderer) for legend in figure.legends]
    named = [axes.get_title() for axes in figure.axes] + [text.get_text() for text in texts]
    assert sum("stochastic" in name for name in named) == 7
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    # Nothing lies over a name, or a name over the axes.
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    for axes in figure.axes:
        for box in boxes:
            assert not axes.get_window_extent(renderer).overlaps(box)
            assert axes.get_window_extent(renderer).height > 0.8 * DPI


def test_a_figure_is_sharp_and_small(tmp_path):
    comparison, folders = compared(tmp_path, ERRORS)
    draw_figure(FIGURES[0], tmp_path, comparison, folders)
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width == 1680
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert (tmp_path / "curves.png").stat().st_size < 50_000


def test_values_that_lie_close_have_a_linear_axis_that_ends_at_labels():
    axes = Figure().add_subplot()
    axes.plot([1.06, 1.26])
    scale_values(axes, Metric("val/error", "min"), [1.06, 1.26])
    ticks = list(axes.yaxis.get_majorticklocs())
    assert axes.get_yscale() == "linear"
    assert axes.get_ylim() == (ticks[0], ticks[-1])
    assert ticks[0] <= 1.06 < 1.26 <= ticks[-1]
    scale_values(axes, Metric("val/error", "min"), [1.06, 12.6])
    assert axes.get_yscale() == "log"


def test_settings_of_an_arm_are_told_apart_and_other_arms_follow():
    def arm(label: str, name: str) -> Arm:
        return Arm(label, (RunRecord("a", "e", "none", "digits", 1, arm=name),), None)

    arms = (arm("a, x=1", "a"), arm("a, x=2", "a"), arm("b", "b"))
    comparison = Comparison(
        "digits", Metric("val/error", "min"), Metric("test/error"), arms, (), (), "test", {}, ()
    )
    styles = arm_styles(comparison, ["c", "b", "a", *"defghijklm"])
    assert styles["a"] == styles["a, x=1"]
    assert len(set(styles.values())) == len(styles) - 1
    assert [styles[name].colour for name in ("a, x=1", "a, x=2", "b", "c")] == [*COLOURS[:4]]
    assert styles["c"].marker == MARKERS[3]


def test_a_checksum_is_of_the_arms_their_runs_and_their_files(tmp_path):
    """By its definition, which must not change: promoted figures hold their checksums."""
    comparison, folders = compared(tmp_path, ERRORS)
    arms = b"none: ['none-s1', 'none-s2']\ndropout: ['dropout-s1', 'dropout-s2']\n"
    file = hashlib.sha256("\n".join([*ERRORS, ""]).encode()).digest()
    expected = hashlib.sha256(arms + 4 * file).hexdigest()
    assert figure_digest(FIGURES[0], comparison, folders) == expected
    draw_figure(FIGURES[0], tmp_path, comparison, folders)
    assert drawn_from(tmp_path / "curves.png") == expected
    # Of the first layer one run of each arm is shown.
    file = hashlib.sha256((tmp_path / "none-s1/first_layer.json").read_bytes()).digest()
    expected = hashlib.sha256(arms + 2 * file).hexdigest()
    assert figure_digest(FIGURES[1], comparison, folders) == expected


def test_a_checksum_tells_what_was_monitored(tmp_path):
    lines = ("epoch,val/error,val_loss", "0,1,1")
    digests = {
        figure_digest(FIGURES[0], *compared(tmp_path, lines, monitor=monitor, mode=mode))
        for monitor in ("val/error", "val_loss")
        for mode in ("min", "max")
    }
    assert len(digests) == 4


@pytest.mark.parametrize(
    "lines", [("epoch,val/error", "0,many"), ("epoch,val/error", "0,1,2"), ("val/error", "1")]
)
def test_damaged_metrics_are_one_sentence(tmp_path, lines):
    comparison, folders = compared(tmp_path, lines)
    for use in (curves, FIGURES[0].caption):
        with pytest.raises(UserError, match=r"metrics.csv is not a table of metrics"):
            use(comparison, folders)


ODD = st.sampled_from(
    ["0", "1", "-1", "nan", "inf", "1e308", "1e99", "-1e99", "1e-320", "", "x", "5", "0.5", "1e-99"]
)
ROWS = st.lists(st.tuples(st.sampled_from(["0", "1", "2", "1e8", "1.5", "nan"]), ODD, ODD))


@pytest.mark.filterwarnings("ignore:Attempting to set identical low and high")
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(ROWS, st.sampled_from([("val/error", "min"), ("loss", "min"), ("loss", "max")]))
@example([("0", "0", "0"), ("1", "-1", "0")], ("val/error", "min"))
@example([("0", "nan", "inf"), ("1", "1", "nan")], ("loss", "min"))
@example([("nan", "1", "1")], ("loss", "max"))
@example([("0", "1e308", "1e308"), ("1", "1", "1e308")], ("val/error", "min"))
def test_whatever_was_logged_is_drawn_or_refused_in_a_sentence(tmp_path, rows, monitored):
    monitor, mode = monitored
    lines = [f"epoch,train/loss,{monitor}", *map(",".join, rows)]
    comparison, folders = compared(tmp_path, lines, monitor=monitor, mode=mode)
    with contextlib.suppress(UserError):
        save(tmp_path / "curves.png", lambda: curves(comparison, folders), "source")


def test_losses_below_zero_are_drawn_whole(tmp_path):
    lines = ("epoch,train/loss,val/error", "0,-1,20", "1,-2,10", "2,-3,5")
    _, costs = curves(*compared(tmp_path, lines)).axes
    bottom, top = costs.get_ylim()
    assert bottom < -3 < -1 < top


@pytest.mark.parametrize("name", ["_mine", "$\\frac$", "a\x1b\nb", "long " * 100])
def test_any_name_of_an_arm_is_a_label(tmp_path, name):
    comparison, folders = compared(tmp_path, ERRORS)
    arm = replace(comparison.arms[0], label=name)
    comparison = replace(comparison, arms=(arm,))
    figures = []
    save(
        tmp_path / "curves.png",
        lambda: figures.append(curves(comparison, folders)) or figures[0],
        "source",
    )
    (label,) = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert label.isprintable()
    assert label.strip().startswith(name[:4].split("\x1b")[0])
    assert len(label) < 100


@pytest.mark.parametrize(
    "change",
    [{"edges": "a"}, {"edges": [0, 0, 1]}, {"counts": [1]}, {"weights": 0}, {"at_bounds": None}],
)
def test_a_damaged_histogram_is_one_sentence(tmp_path, change):
    comparison, folders = compared(tmp_path, ERRORS)
    path = tmp_path / "none-s1/first_layer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=r"none-s1/first_layer.json is not a histogram of weights"):
        histograms(comparison, folders)
