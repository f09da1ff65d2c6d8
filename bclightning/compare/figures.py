"""The paper's figures in our own data, drawn from promoted records."""

import csv
import hashlib
import io
import itertools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from PIL import Image

from bclightning.compare.arms import Comparison
from bclightning.compare.metric import Metric
from bclightning.errors import UserError
from bclightning.formatting import printable
from bclightning.runs.folder import RunFolder
from bclightning.runs.json_types import WrongTypeError, checker
from bclightning.runs.metrics_csv import EPOCH, MetricsTable
from bclightning.storage import replacing
from bclightning.vocabulary import TRAIN_LOSS

# The name of the text in a figure's file that says which data it was drawn from.
SOURCE = "Source"

# Told apart in print and by those who see few colours (Okabe and Ito's palette).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
# One more than colours, so that an eighth arm has a marker of its own in the first one's colour.
MARKERS = ("o", "s", "^", "D", "v", "P", "*", "h")

# Names that the mean loss of an epoch's training batches is logged under: ours, and Lightning's.
TRAINING_COSTS = (TRAIN_LOSS, "train_loss")

# Markers on a curve, at most about as many.
MARKS = 8

# Characters of a label, and pixels of a side of a run's image, at most.
MAX_LABEL = 80
MAX_IMAGE_SIDE = 10_000

# No run has more epochs, and no curve that can be read a greater value.
MAX_EPOCH = 10**9
MAX_DRAWN = 1e100

Folders = dict[str, RunFolder]
"""Folders of runs by their id."""


@dataclass(frozen=True)
class ArmStyle:
    """How an arm is drawn in all figures of a page.

    Attributes:
        colour: Colour of its lines and areas.
        marker: Marker of its points.
    """

    colour: str
    marker: str


def arm_styles(comparison: Comparison, others: Iterable[str] = ()) -> dict[str, ArmStyle]:
    """The style of each arm, the same in every figure of a page.

    Args:
        comparison: Its arms have the first styles, in their order.
        others: Names of more arms, such as a sweep's, some of which may have no finished run.

    Returns:
        Styles by label, and by name; an arm that is there in several settings has a style for each
        label, and under its name that of the first.
    """
    styles: dict[str, ArmStyle] = {}
    for arm in comparison.arms:
        styles[arm.label] = _style(len(styles))
    for arm in comparison.arms:
        styles.setdefault(arm.name, styles[arm.label])
    place = len(comparison.arms)
    for name in others:
        if name not in styles:
            styles[name] = _style(place)
            place += 1
    return styles


def _style(place: int) -> ArmStyle:
    return ArmStyle(COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)])


def curves(comparison: Comparison, folders: Folders) -> Figure:
    """Training cost (dotted) and monitored metric (solid) by epoch, an arm a colour (figure 3).

    Lines are means over seeds, bands their least and greatest.
    """
    figure, axes = _figure(7.0, 4.2)
    styles = arm_styles(comparison)
    costs: dict[str, dict[int, list[float]]] = {}
    every: list[float] = []
    for arm in comparison.arms:
        tables = [_metrics(folders[run.run_id]) for run in arm.runs]
        if cost := _training_cost(tables):
            costs[arm.label] = cost
        series = _by_epoch(tables, comparison.monitor.name)
        if not series:
            continue
        epochs, values = [epoch + 1 for epoch in series], list(series.values())
        every += itertools.chain.from_iterable(values)
        style = styles[arm.label]
        axes.plot(
            epochs,
            [np.mean(v) for v in values],
            color=style.colour,
            marker=style.marker,
            markevery=max(1, len(epochs) // MARKS),
            ms=4,
            label=figure_label(f"{arm.label} (n = {len(arm.runs)})"),
        )
        if len(tables) > 1:
            low, high = [min(v) for v in values], [max(v) for v in values]
            axes.fill_between(epochs, low, high, color=style.colour, alpha=0.15, linewidth=0)
    # The first epochs are far off and would flatten the rest.
    scale_values(axes, comparison.monitor, every)
    axes.set(xlabel="epoch", ylabel=figure_label(f"{comparison.monitor.axis_label} (solid)"))
    if costs:
        _draw_costs(axes.twinx(), costs, styles)
    else:
        axes.spines.right.set_visible(False)
    legend(figure, len(comparison.arms))
    return figure


def _draw_costs(
    axes: Axes, costs: dict[str, dict[int, list[float]]], styles: dict[str, ArmStyle]
) -> None:
    later: list[float] = []
    for label, series in costs.items():
        means = [float(np.mean(values)) for values in series.values()]
        axes.plot([epoch + 1 for epoch in series], means, ":", color=styles[label].colour)
        later += means[1:]
    axes.set(ylabel="training cost (dotted)")
    # A loss may be negative, as a log-likelihood's, and then has no top to cut at.
    if later and max(later) > 0:
        top = min(axes.get_ylim()[1], 3 * max(later))
        axes.set_ylim(-0.05 * top, top)


def _curves_caption(comparison: Comparison, folders: Folders) -> str:
    metric = comparison.monitor.words
    tables = [_metrics(folders[run.run_id]) for run in comparison.runs]
    if _training_cost(tables):
        return (
            f"Training cost (dotted, the first epochs cut off) and {metric} (solid, the range over "
            "seeds shaded), means over seeds (figure 3 of the paper)."
        )
    return f"By epoch: {metric}, means over seeds, the range over seeds shaded."


def histograms(comparison: Comparison, folders: Folders) -> Figure:
    """The first layer's latent weights at the best epoch, an arm a panel (figure 2)."""
    arms = [arm for arm in comparison.arms if folders[arm.runs[0].run_id].first_layer.exists()]
    styles = arm_styles(comparison)
    figure, places = panels(len(arms), 2.6, 2.4)
    edges: list[float] = []
    for axes, arm in zip(places, arms, strict=True):
        run = arm.runs[0]
        histogram = _read_histogram(folders[run.run_id].first_layer)
        edges += histogram["edges"]
        # Bins are of a width of their own in each panel, so that shares could not be compared.
        density = np.array(histogram["counts"]) / histogram["weights"] / np.diff(histogram["edges"])
        axes.stairs(density, histogram["edges"], fill=True, color=styles[arm.label].colour)
        axes.set_title(figure_label(f"{arm.label}, seed {run.seed}"), fontsize=9)
        axes.set_xlabel(f"{_percent(histogram['at_bounds'])} at ±1 or beyond", fontsize=8)
        axes.tick_params(labelsize=7)
    for axes in places:
        axes.set_xlim(min(edges), max(edges))
    figure.supylabel("density of the weights", fontsize=9)
    return figure


class _Histogram(TypedDict):
    edges: list[float]
    counts: list[int]
    weights: int
    at_bounds: float


_check_histogram = checker(_Histogram)


def _read_histogram(path: Path) -> _Histogram:
    try:
        content: _Histogram = json.loads(path.read_text(encoding="utf-8"))
        _check_histogram(content, "it")
        edges, counts = content["edges"], content["counts"]
        rising = all(low < high for low, high in itertools.pairwise(edges))
        if len(edges) != len(counts) + 1 or not counts or not rising or content["weights"] < 1:
            raise WrongTypeError("its bins are none")
    except (OSError, ValueError, RecursionError, WrongTypeError) as error:
        raise UserError(f"{path} is not a histogram of weights") from error
    return content


def _percent(share: float) -> str:
    return "< 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def features(comparison: Comparison, folders: Folders) -> Figure:
    """The first layer's features at the best epoch, an arm a panel (figure 1)."""
    arms = [arm for arm in comparison.arms if folders[arm.runs[0].run_id].features.exists()]
    figure, places = panels(len(arms), 3.2, 3.4)
    for axes, arm in zip(places, arms, strict=True):
        run = arm.runs[0]
        axes.imshow(_read_image(folders[run.run_id].features), interpolation="nearest")
        axes.set_title(figure_label(f"{arm.label}, seed {run.seed}"), fontsize=9)
        axes.axis("off")
    return figure


def _read_image(path: Path) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if max(image.size) > MAX_IMAGE_SIDE:
                raise ValueError
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not an image of features") from error


def figure_label(text: str) -> str:
    r"""Text from elsewhere as a label: in one line, short, and not hidden by its first character.

    Example:
        >>> figure_label("_mine\x1b"), len(figure_label("long" * 100))
        (' _mine\\x1b', 83)
    """
    text = printable(text)
    text = text if len(text) <= MAX_LABEL else f"{text[:MAX_LABEL]}..."
    # Matplotlib leaves names with an underscore out of legends.
    return f" {text}" if text.startswith("_") else text


@dataclass(frozen=True)
class PageFigure:
    """A figure of a page.

    Attributes:
        file: Name of its file.
        draw: How it is drawn.
        caption: What it shows, in a sentence.
        source: Name of the file in a run's folder that it is drawn from.
        every_run: Whether it shows all runs of an arm, or the first one only.
    """

    file: str
    draw: Callable[[Comparison, Folders], Figure]
    caption: Callable[[Comparison, Folders], str]
    source: str
    every_run: bool = False


FIGURES = (
    PageFigure(
        file="curves.png",
        draw=curves,
        caption=_curves_caption,
        source="metrics.csv",
        every_run=True,
    ),
    PageFigure(
        file="weights.png",
        draw=histograms,
        caption=lambda *_: (
            "Latent weights of the first layer at the best epoch (figure 2 of the paper)."
        ),
        source="first_layer.json",
    ),
    PageFigure(
        file="features.png",
        draw=features,
        caption=lambda *_: "Features of the first layer at the best epoch (figure 1 of the paper).",
        source="first_layer.png",
    ),
)


def source_files(figure: PageFigure, comparison: Comparison, folders: Folders) -> list[Path]:
    """The files that a figure is drawn from, of those that are there."""
    shown = None if figure.every_run else 1
    runs = [run for arm in comparison.arms for run in arm.runs[:shown]]
    paths = [folders[run.run_id].path / figure.source for run in runs]
    return [path for path in paths if path.is_file()]


def figure_digest(figure: PageFigure, comparison: Comparison, folders: Folders) -> str:
    """A checksum of all that a figure is drawn from: which runs, in which arms, and their data."""
    total = hashlib.sha256(metric_salt(comparison.monitor))
    for arm in comparison.arms:
        total.update(
            f"{arm.label}: {[run.run_id for run in arm.runs]}\n".encode(errors="backslashreplace")
        )
    for path in source_files(figure, comparison, folders):
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def metric_salt(monitor: Metric) -> bytes:
    """What the monitored metric adds to a checksum; nothing for the validation error.

    Checksums of figures that were drawn when no other metric could be monitored stay what they
    were.
    """
    return b"" if monitor.is_error else f"{monitor.heading}\n".encode(errors="backslashreplace")


def draw_figure(figure: PageFigure, folder: Path, comparison: Comparison, folders: Folders) -> None:
    """Draw a figure into its file in a page's folder."""
    digest = figure_digest(figure, comparison, folders)
    save(folder / figure.file, lambda: figure.draw(comparison, folders), digest)


def save(path: Path, make: Callable[[], Figure], source: str) -> None:
    """Draw a figure into a file that says which data it was drawn from."""
    # Labels are names from elsewhere, and a dollar in one begins no formula.
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "text.parse_math": False}):
        figure = make()
        content = io.BytesIO()
        metadata = {SOURCE: source, "Software": None}
        figure.savefig(content, format="png", dpi=120, metadata=metadata)
    with replacing(path) as file:
        file.write(content.getvalue())


def drawn_from(path: Path) -> str:
    """The checksum that a figure's file says.

    Raises:
        UserError: The file is missing or not a whole image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return str(image.info.get(SOURCE, ""))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is missing or not a whole image") from error


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """An empty figure of so many panels side by side, each of a width and a height in inches."""
    figure = Figure(figsize=(width * count, height), layout="constrained")
    return figure, [figure.add_subplot(1, count, place + 1) for place in range(count)]


# The leading figures of labels on a logarithmic axis, from few to many.
_LEADING = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8))


def label_logarithmic(axis: Axis) -> None:
    """Label a logarithmic axis so that values can be read off, whatever its range."""
    low, high = sorted(axis.get_view_interval())
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for leading in _LEADING:
        ticks = [figure * 10.0**decade for decade in decades for figure in leading]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 5:
            break
    else:
        ticks = [tick for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter("{x:g}")


def legend(figure: Figure, entries: int) -> None:
    """Put the legend below the axes, where it hides no data."""
    if any(axes.get_legend_handles_labels()[0] for axes in figure.axes):
        figure.legend(loc="outside lower center", ncols=min(entries, 4), frameon=False, fontsize=9)


def scale_values(axes: Axes, metric: Metric, values: Sequence[float]) -> None:
    """Scale the axis of a metric's values: logarithmic where less is better, else linear.

    Args:
        axes: Axes that the values were drawn on.
        metric: The metric.
        values: The values; with one of 0 or less there is no logarithm, but of errors in percent
            those above 0 are shown.
    """
    positive = bool(values) and (max(values) if metric.is_error else min(values)) > 0
    if positive and (metric.is_error or metric.mode == "min"):
        axes.set_yscale("log")
        label_logarithmic(axes.yaxis)


def _metrics(folder: RunFolder) -> list[dict[str, float]]:
    try:
        rows = MetricsTable(folder.metrics).rows
    except (TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{folder.metrics} is not a table of metrics") from error
    if not all(_is_epoch(row.get(EPOCH)) for row in rows):
        raise UserError(f"{folder.metrics} is not a table of metrics: it has rows without an epoch")
    return rows


def _is_epoch(value: float | None) -> bool:
    return value is not None and 0 <= value < MAX_EPOCH and value == int(value)


def _training_cost(tables: list[list[dict[str, float]]]) -> dict[int, list[float]]:
    return next((series for key in TRAINING_COSTS if (series := _by_epoch(tables, key))), {})


def _by_epoch(tables: list[list[dict[str, float]]], key: str) -> dict[int, list[float]]:
    series: dict[int, list[float]] = {}
    for table in tables:
        for row in table:
            # A loss that is NaN or infinite, as of an epoch that diverged, has no place on an axis.
            if abs(row.get(key, math.nan)) < MAX_DRAWN:
                series.setdefault(int(row[EPOCH]), []).append(row[key])
    return dict(sorted(series.items()))
