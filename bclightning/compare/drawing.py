"""What figures of a page share: styles, labels, legends, panels, axes and files."""

import functools
import io
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bclightning.compare.arms import Comparison
from bclightning.compare.metric import Metric
from bclightning.errors import UserError
from bclightning.formatting import printable
from bclightning.storage import replacing

# The name of the text in a figure's file that says which data it was drawn from.
SOURCE = "Source"

# Told apart in print and by those who see few colours (Okabe and Ito's palette).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
# As many as have no divisor in common with the colours, so that repeats are far apart.
LINES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "*", "h")

# A page is shown 840 pixels wide, and twice as sharp where a screen can.
WIDTH = 8.4
DPI = 200

# Characters of a label at most, and points of its letters.
MAX_LABEL = 80
SMALL = 9.0

# Colours of a figure's file: its lines and what lies between them and white, or its greys.
PALETTE = 128
GREYS = 16

# Values that lie closer together than this ratio have a linear axis.
NARROW = 3.0

LineStyle = str | tuple[int, tuple[int, ...]]


@dataclass(frozen=True)
class ArmStyle:
    """How an arm is drawn in all figures of a page.

    Attributes:
        colour: Colour of its lines and areas.
        line: Style of its lines.
        marker: Marker of its points.
    """

    colour: str
    line: LineStyle
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
    return ArmStyle(
        COLOURS[place % len(COLOURS)], LINES[place % len(LINES)], MARKERS[place % len(MARKERS)]
    )


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


def wrapped(text: str, inches: float, size: float = SMALL) -> str:
    """Text from elsewhere as a label in as many lines as fit a width.

    Args:
        text: The text.
        inches: The width.
        size: Points of its letters.

    Example:
        >>> print(wrapped("deterministic, learning_rate=0.001, seed 39", 2.0))
        deterministic,
        learning_rate=0.001, seed 39
    """
    label = figure_label(text)
    for columns in range(len(label), 0, -1):
        lines = textwrap.wrap(label, columns)
        if max((_text_width(line, size) for line in lines), default=0.0) <= inches:
            return "\n".join(lines)
    return label


@functools.lru_cache
def _renderer() -> Any:
    # What measures text as it will be drawn; Matplotlib gives it no types.
    canvas: Any = FigureCanvasAgg(Figure(dpi=DPI))
    return canvas.get_renderer()


def _text_width(text: str, size: float) -> float:
    """Width of a line in inches."""
    width, _, _ = _renderer().get_text_width_height_descent(
        text, FontProperties(size=size), ismath=False
    )
    return float(width) / DPI


def panels(count: int, height: float, most: int = 4) -> tuple[Figure, list[Axes]]:
    """An empty figure of panels in as many rows as its width asks for.

    Args:
        count: Number of panels, at least 1.
        height: Height of a panel in inches.
        most: Panels side by side at most.
    """
    rows = math.ceil(count / most)
    columns = math.ceil(count / rows)
    width = panel_width(count, most)
    figure = Figure(figsize=(width * columns, height * rows), dpi=DPI, layout="constrained")
    return figure, [figure.add_subplot(rows, columns, place + 1) for place in range(count)]


def panel_width(count: int, most: int = 4) -> float:
    """Width of one of the panels of `panels`, in inches."""
    columns = math.ceil(count / math.ceil(count / most))
    # One or two alone need not fill a page.
    return min(WIDTH / columns, 1.5 * WIDTH / most)


def legend(figure: Figure, more: Sequence[Artist] = ()) -> None:
    """Put one legend of all panels below them, where it hides no data, and make room for it.

    Args:
        figure: The figure; a label that several panels have is there once.
        more: Handles of more entries.
    """
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    for handle in more:
        entries.setdefault(str(handle.get_label()), handle)
    if not entries:
        return
    labels = [wrapped(label, figure.get_figwidth() - 1.2) for label in entries]
    lines = any(isinstance(h, Line2D) and h.get_linestyle() != "None" for h in entries.values())
    for columns in range(min(len(entries), 4), 0, -1):
        box = figure.legend(
            list(entries.values()),
            labels,
            loc="outside lower center",
            ncols=columns,
            frameon=False,
            fontsize=SMALL,
            # Long enough to tell the lines' styles apart.
            handlelength=3.5 if lines else 1.2,
        )
        extent = box.get_window_extent(_renderer())
        if extent.width / DPI <= figure.get_figwidth() - 0.2 or columns == 1:
            figure.set_figheight(figure.get_figheight() + extent.height / DPI)
            return
        box.remove()
        # Constrained layout keeps room for the legends that it knows.
        figure.legends.clear()


# The leading figures of labels on a logarithmic axis, from few to many.
_LEADING = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8))

# Labels on an axis at most, about.
MAX_TICKS = 10


def label_logarithmic(axis: Axis) -> None:
    """Label a logarithmic axis so that values can be read off, whatever its range."""
    low, high = sorted(axis.get_view_interval())
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = range(first, last + 1, max(1, math.ceil((last - first) / MAX_TICKS)))
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


def scale_values(axes: Axes, metric: Metric, values: Sequence[float]) -> None:
    """Scale the axis of a metric's values: logarithmic where less is better and they lie far apart.

    A linear axis begins and ends at a label.

    Args:
        axes: Axes that the values were drawn on.
        metric: The metric.
        values: The values; with one of 0 or less there is no logarithm, but of errors in percent
            those above 0 are shown.
    """
    positive = [value for value in values if value > 0]
    if not metric.is_error and len(positive) < len(values):
        positive = []
    if not (positive and (metric.is_error or metric.mode == "min")):
        return
    if max(positive) / min(positive) >= NARROW or len(positive) < len(values):
        axes.set_yscale("log")
        label_logarithmic(axes.yaxis)
    elif max(positive) > min(positive):
        ticks = MaxNLocator(6).tick_values(min(positive), max(positive))
        axes.set_ylim(ticks[0], ticks[-1])
        axes.yaxis.set_major_locator(FixedLocator(ticks))


def save(path: Path, make: Callable[[], Figure], source: str) -> None:
    """Draw a figure into a file that says which data it was drawn from."""
    # Labels are names from elsewhere, and a dollar in one begins no formula.
    with mpl.rc_context(
        {
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "text.parse_math": False,
        }
    ):
        figure = make()
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=DPI)
    said = PngInfo()
    said.add_text(SOURCE, source)
    with Image.open(content) as image, replacing(path) as file:
        # With a palette the file is a third as large.
        pixels = image.convert("RGB")
        colours = GREYS if _is_grey(pixels) else PALETTE
        small = pixels.quantize(colours, dither=Image.Dither.NONE)
        small.save(file, format="png", optimize=True, pnginfo=said)


def _is_grey(image: Image.Image) -> bool:
    red, green, blue = (np.asarray(band) for band in image.split())
    return bool((red == green).all() and (green == blue).all())


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
