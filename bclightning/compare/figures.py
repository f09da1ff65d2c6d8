"""The paper's figures in our own data, drawn from promoted records."""

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from PIL import Image

from bclightning.compare.comparison import Comparison
from bclightning.errors import UserError
from bclightning.runs.folder import RunFolder
from bclightning.storage import replacing

# The name of the text in a figure's file that says which data it was drawn from.
SOURCE = "Source"

# Told apart in print and by those who see few colours (Okabe and Ito's palette).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")

Folders = dict[str, RunFolder]
"""Folders of runs by their id."""


def curves(comparison: Comparison, folders: Folders) -> Figure:
    """Training cost (dotted) and validation error (solid) by epoch, a method a colour (figure 3).

    Lines are means over seeds, bands their least and greatest.
    """
    figure, errors = _figure(7.0, 4.2)
    costs = errors.twinx()
    means: list[list[float]] = []
    for row, colour in zip(comparison.rows, _colours(comparison), strict=True):
        tables = [_metrics(folders[run.run_id]) for run in row.runs]
        for axes, key, style in ((errors, "val/error", "-"), (costs, "train/loss", ":")):
            series = _by_epoch(tables, key)
            if not series:
                continue
            epochs = [epoch + 1 for epoch in series]
            values = list(series.values())
            if style == ":":
                means.append([float(np.mean(v)) for v in values])
            label = f"{row.label} (n = {len(row.runs)})" if style == "-" else None
            axes.plot(epochs, [np.mean(v) for v in values], style, color=colour, label=label)
            if style == "-" and len(tables) > 1:
                low, high = [min(v) for v in values], [max(v) for v in values]
                axes.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
    # The first epochs are far off and would flatten the rest.
    errors.set_yscale("log")
    label_logarithmic(errors.yaxis)
    errors.set(xlabel="epoch", ylabel="validation error, % (solid)")
    costs.set(ylabel="training cost (dotted)")
    later = [mean for some in means for mean in some[1:]]
    if later:
        top = min(costs.get_ylim()[1], 3 * max(later))
        costs.set_ylim(-0.05 * top, top)
    legend(figure, len(comparison.rows))
    return figure


def histograms(comparison: Comparison, folders: Folders) -> Figure:
    """The first layer's latent weights at the best epoch, a method a panel (figure 2)."""
    rows = [row for row in comparison.rows if folders[row.runs[0].run_id].first_layer.exists()]
    figure, places = panels(len(rows), 2.6, 2.4)
    edges: list[float] = []
    for axes, row in zip(places, rows, strict=True):
        run = row.runs[0]
        content = json.loads(folders[run.run_id].first_layer.read_text(encoding="utf-8"))
        edges += content["edges"]
        # Bins are of a width of their own in each panel, so that shares could not be compared.
        density = np.array(content["counts"]) / content["weights"] / np.diff(content["edges"])
        axes.stairs(density, content["edges"], fill=True, color=COLOURS[0])
        axes.set_title(f"{row.label}, seed {run.seed}", fontsize=9)
        axes.set_xlabel(f"{_percent(content['at_bounds'])} at ±1 or beyond", fontsize=8)
        axes.tick_params(labelsize=7)
    for axes in places:
        axes.set_xlim(min(edges), max(edges))
    figure.supylabel("density of the weights", fontsize=9)
    return figure


def _percent(share: float) -> str:
    return "< 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def features(comparison: Comparison, folders: Folders) -> Figure:
    """The first layer's features at the best epoch, a method a panel (figure 1)."""
    rows = [row for row in comparison.rows if folders[row.runs[0].run_id].features.exists()]
    figure, places = panels(len(rows), 3.2, 3.4)
    for axes, row in zip(places, rows, strict=True):
        run = row.runs[0]
        with Image.open(folders[run.run_id].features) as image:
            axes.imshow(np.asarray(image), interpolation="nearest")
        axes.set_title(f"{row.label}, seed {run.seed}", fontsize=9)
        axes.axis("off")
    return figure


Draw = Callable[[Comparison, Folders], Figure]

# File, what it shows, how it is drawn, and which of a run's files it is drawn from.
FIGURES: tuple[tuple[str, str, Draw, str], ...] = (
    (
        "curves.png",
        "Training cost (dotted, the first epochs cut off) and validation error (solid, the range "
        "over seeds shaded), means over seeds (figure 3 of the paper).",
        curves,
        "metrics.csv",
    ),
    (
        "weights.png",
        "Latent weights of the first layer at the best epoch (figure 2 of the paper).",
        histograms,
        "first_layer.json",
    ),
    (
        "features.png",
        "Features of the first layer at the best epoch (figure 1 of the paper).",
        features,
        "first_layer.png",
    ),
)


def sources(name: str, comparison: Comparison, folders: Folders) -> list[Path]:
    """The files that a figure is drawn from, of those that are there."""
    (file,) = [file for figure, _, _, file in FIGURES if figure == name]
    first_only = file != "metrics.csv"
    runs = [run for row in comparison.rows for run in row.runs[: 1 if first_only else None]]
    paths = [folders[run.run_id].path / file for run in runs]
    return [path for path in paths if path.is_file()]


def digest(name: str, comparison: Comparison, folders: Folders) -> str:
    """A checksum of all that a figure is drawn from: which runs, in which rows, and their data."""
    total = hashlib.sha256()
    for row in comparison.rows:
        total.update(f"{row.label}: {[run.run_id for run in row.runs]}\n".encode())
    for path in sources(name, comparison, folders):
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def draw(path: Path, comparison: Comparison, folders: Folders) -> None:
    """Draw a figure of `FIGURES` into a file that says which data it was drawn from."""
    (make,) = [make for name, _, make, _ in FIGURES if name == path.name]
    save(path, lambda: make(comparison, folders), digest(path.name, comparison, folders))


def save(path: Path, make: Callable[[], Figure], source: str) -> None:
    """Draw a figure into a file that says which data it was drawn from."""
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False}):
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
    except (OSError, SyntaxError, ValueError) as error:
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
    figure.legend(loc="outside lower center", ncols=min(entries, 4), frameon=False, fontsize=9)


def _colours(comparison: Comparison) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(len(comparison.rows))]


def _metrics(folder: RunFolder) -> list[dict[str, str]]:
    with folder.metrics.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _by_epoch(tables: list[list[dict[str, str]]], key: str) -> dict[int, list[float]]:
    series: dict[int, list[float]] = {}
    for table in tables:
        for line in table:
            if line.get(key):
                series.setdefault(int(line["epoch"]), []).append(float(line[key]))
    return dict(sorted(series.items()))
