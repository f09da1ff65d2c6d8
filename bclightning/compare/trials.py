"""What a sweep searched, kept on its page: a table of all trials, and a figure of their errors."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bclightning.compare.figures import COLOURS, label_logarithmic, legend, panels
from bclightning.errors import UserError
from bclightning.runs.record import RunRecord
from bclightning.storage import write_text
from bclightning.sweep.definition import Definition, Range

TRIALS = "trials.csv"
FIGURE = "search.png"

# The columns before those of what was searched, and the one after.
_COLUMNS = ("method", "trial", "status", "validation_error")
_REASON = "reason"


@dataclass(frozen=True)
class Trial:
    """A trial of a search.

    Attributes:
        method: The arm that it tried a setting of.
        number: Its place in the arm's study.
        status: ``finished``, or how it ended.
        error: Validation error at the best epoch, in percent; ``None`` if it has none.
        settings: Value of each option that was searched, as text.
    """

    method: str
    number: int
    status: str
    error: float | None
    settings: dict[str, str]


def keep(folder: Path, records: Sequence[RunRecord], definition: Definition) -> None:
    """Write the table of a sweep's trials into its page's folder.

    Without trials among `records`, as when a page is made of itself, a table that is there stays.
    """
    trials = [run for run in records if run.stage == "tune" and run.arm_name in definition.arms]
    if not trials:
        return
    order = {arm: place for place, arm in enumerate(definition.arms)}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS, *definition.space, _REASON])
    for run in sorted(trials, key=lambda run: (order[run.arm_name], run.trial)):
        # A recipe names an option without the level that configurations have below a class.
        settings = {
            key.replace(".init_args", ""): value for key, value in run.hyperparameters.items()
        }
        searched = [settings.get(key.replace(".init_args", "")) for key in definition.space]
        ended = (run.status, run.best_score)
        writer.writerow([run.arm_name, run.trial, *ended, *searched, run.reason])
    write_text(folder / TRIALS, text.getvalue())


def read(folder: Path) -> list[Trial]:
    """The trials of a page's folder; none if it has no table of them.

    Raises:
        UserError: The table is damaged.
    """
    path = folder / TRIALS
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_trial(row) for row in csv.DictReader(file)]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is not a table of trials; write the page again") from error


def _trial(row: dict[str, str]) -> Trial:
    method, number, status, error = (row.pop(column) for column in _COLUMNS)
    # For people to read; tables of before have none.
    row.pop(_REASON, None)
    return Trial(method, int(number), status, float(error) if error else None, row)


def digest(folder: Path) -> str:
    """A checksum of what the figure is drawn from."""
    return hashlib.sha256((folder / TRIALS).read_bytes()).hexdigest()


def section(folder: Path) -> list[str]:
    """The part of a page that shows the search; nothing if there was none."""
    trials = read(folder)
    if not trials:
        return []
    counts = Counter(trial.status for trial in trials)
    ends = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    caption = "Validation error of the search's trials, a line for each method"
    if set(counts) - {"finished"}:
        caption += "; crosses are trials that did not finish"
    return [
        "## Search",
        f"{len(trials)} trials ({ends}); [{TRIALS}]({TRIALS}) has each.",
        f"![{caption}.]({FIGURE})\n\n*{caption}.*",
    ]


def figure(folder: Path, definition: Definition, rows: Sequence[str]) -> Figure:
    """Validation errors of the trials, a searched option a panel, a method a colour.

    Args:
        folder: The page's.
        definition: The sweep's.
        rows: Labels of the table's rows, in whose order methods have their colours.
    """
    trials = read(folder)
    arms = sorted(definition.arms, key=lambda arm: rows.index(arm) if arm in rows else len(rows))
    drawn, places = panels(len(definition.space), 6.2, 4.4)
    for axes, (option, searched) in zip(places, definition.space.items(), strict=True):
        numbers = isinstance(searched, Range)
        for place, arm in enumerate(arms):
            _arm([t for t in trials if t.method == arm], option, numbers, axes, arm, place)
        if isinstance(searched, Range) and searched.low < searched.high:
            axes.set_xscale("log" if searched.log else "linear")
            # The whole range, whether or not a trial lies near its ends.
            axes.set_xlim(searched.low, searched.high)
            if searched.log:
                label_logarithmic(axes.xaxis)
        axes.set_yscale("log")
        label_logarithmic(axes.yaxis)
        if any(trial.status != "finished" for trial in trials):
            bottom, top = axes.get_ylim()
            axes.set_ylim(bottom, top * (top / bottom) ** 0.25)
        axes.set(xlabel=option, ylabel="validation error, %")
        axes.spines.right.set_visible(False)
    # Each panel has the same methods, and the legend one of each.
    for axes in places[1:]:
        for line in axes.lines:
            line.set_label("")
    legend(drawn, len(arms))
    return drawn


def _arm(trials: list[Trial], option: str, numbers: bool, axes: Axes, arm: str, place: int) -> None:
    def value(trial: Trial) -> float | str:
        text = trial.settings[option]
        return float(text) if numbers else text

    colour = COLOURS[place % len(COLOURS)]
    ended = sorted(
        ((value(t), t.error) for t in trials if t.status == "finished" and t.error is not None),
        key=lambda point: point[0] if isinstance(point[0], float) else 0.0,
    )
    style = "o-" if numbers else "o"
    axes.plot([x for x, _ in ended], [y for _, y in ended], style, color=colour, label=arm, ms=4)
    # Each method's on a line of its own above the errors, since all share the search's draws.
    others = [value(t) for t in trials if t.status != "finished"]
    height = [0.98 - 0.03 * place] * len(others)
    marks = axes.get_xaxis_transform()
    axes.plot(others, height, "x", color=colour, ms=4, transform=marks)
