"""The paper's figures in our own data, drawn from promoted records."""

import csv
import hashlib
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from bclightning.compare.arms import Comparison
from bclightning.compare.drawing import (
    ArmStyle,
    arm_styles,
    figure_label,
    label_logarithmic,
    legend,
    panel_width,
    panels,
    save,
    scale_values,
    wrapped,
)
from bclightning.compare.metric import Metric
from bclightning.errors import UserError
from bclightning.runs.folder import RunFolder
from bclightning.runs.json_types import WrongTypeError, checker
from bclightning.runs.metrics_csv import EPOCH, MetricsTable
from bclightning.vocabulary import TRAIN_LOSS

# Names that the mean loss of an epoch's training batches is logged under: ours, and Lightning's.
TRAINING_COSTS = (TRAIN_LOSS, "train_loss")

# Markers on a curve, at most about as many.
MARKS = 8

# Pixels of a side of a run's image, at most.
MAX_IMAGE_SIDE = 10_000

# No run has more epochs, and no curve that can be read a greater value.
MAX_EPOCH = 10**9
MAX_DRAWN = 1e100

Folders = dict[str, RunFolder]
"""Folders of runs by their id."""


def curves(comparison: Comparison, folders: Folders) -> Figure:
    """Monitored metric and training cost by epoch, each in a panel, an arm a line (figure 3).

    Lines are means over seeds, bands their least and greatest.
    """
    styles = arm_styles(comparison)
    tables = {
        arm.label: [_metrics(folders[run.run_id]) for run in arm.runs] for arm in comparison.arms
    }
    metric = {label: _by_epoch(each, comparison.monitor.name) for label, each in tables.items()}
    costs = {label: _training_cost(each) for label, each in tables.items()}
    figure, places = panels(2 if any(costs.values()) else 1, 3.4, most=2)
    names = {
        arm.label: figure_label(f"{arm.label} (n = {len(arm.runs)})") for arm in comparison.arms
    }
    values = _draw_series(places[0], metric, styles, names)
    # The first epochs are far off and would flatten the rest.
    scale_values(places[0], comparison.monitor, values)
    places[0].set(ylabel=figure_label(comparison.monitor.axis_label))
    if len(places) == 2:
        values = _draw_series(places[1], costs, styles, names)
        # A loss may be negative, as a log-likelihood's, or 0 at last.
        if values and min(values) > 0:
            places[1].set_yscale("log")
            label_logarithmic(places[1].yaxis)
        places[1].set(ylabel="training cost")
    for axes in places:
        axes.set(xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    legend(figure)
    return figure


def _draw_series(
    axes: Axes,
    series: dict[str, dict[int, list[float]]],
    styles: dict[str, ArmStyle],
    names: dict[str, str],
) -> list[float]:
    """Draw the values of each arm by epoch, and return all that were drawn."""
    drawn: list[float] = []
    for label, by_epoch in series.items():
        if not by_epoch:
            continue
        epochs, values = [epoch + 1 for epoch in by_epoch], list(by_epoch.values())
        drawn += itertools.chain.from_iterable(values)
        style = styles[label]
        axes.plot(
            epochs,
            [float(np.mean(each)) for each in values],
            color=style.colour,
            linestyle=style.line,
            linewidth=1.3,
            marker=style.marker,
            markevery=max(1, len(epochs) // MARKS),
            ms=4,
            label=names[label],
        )
        if any(len(each) > 1 for each in values):
            low, high = [min(each) for each in values], [max(each) for each in values]
            axes.fill_between(epochs, low, high, color=style.colour, alpha=0.15, linewidth=0)
    return drawn


def _curves_caption(comparison: Comparison, folders: Folders) -> str:
    metric = comparison.monitor.words
    tables = [_metrics(folders[run.run_id]) for run in comparison.runs]
    if _training_cost(tables):
        return (
            f"{metric[:1].upper()}{metric[1:]} and training cost by epoch, means over seeds, the "
            "range over seeds shaded (figure 3 of the paper)."
        )
    return f"By epoch: {metric}, means over seeds, the range over seeds shaded."


def histograms(comparison: Comparison, folders: Folders) -> Figure:
    """The first layer's latent weights at the best epoch, an arm a panel (figure 2)."""
    arms = [arm for arm in comparison.arms if folders[arm.runs[0].run_id].first_layer.exists()]
    styles = arm_styles(comparison)
    figure, places = panels(len(arms), 2.1)
    room = panel_width(len(arms)) - 0.3
    edges: list[float] = []
    for axes, arm in zip(places, arms, strict=True):
        run = arm.runs[0]
        histogram = _read_histogram(folders[run.run_id].first_layer)
        edges += histogram["edges"]
        # Bins are of a width of their own in each panel, so that shares could not be compared.
        density = np.array(histogram["counts"]) / histogram["weights"] / np.diff(histogram["edges"])
        axes.stairs(density, histogram["edges"], fill=True, color=styles[arm.label].colour)
        axes.set_title(wrapped(f"{arm.label}, seed {run.seed}", room), fontsize=9)
        axes.set_xlabel(f"{_percent(histogram['at_bounds'])} at ±1 or beyond", fontsize=8)
        axes.tick_params(labelsize=7)
    for axes in places:
        axes.set_xlim(min(edges), max(edges))
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 5, 10]))
        axes.xaxis.set_major_formatter("{x:g}")
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
    figure, places = panels(len(arms), 2.3)
    room = panel_width(len(arms)) - 0.1
    for axes, arm in zip(places, arms, strict=True):
        run = arm.runs[0]
        axes.imshow(_read_image(folders[run.run_id].features), interpolation="nearest")
        axes.set_title(wrapped(f"{arm.label}, seed {run.seed}", room), fontsize=9)
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
