"""What a sweep searched, kept on its page: a table of all trials, and a figure of their errors."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation, Transform

from bclightning.compare.arms import Comparison
from bclightning.compare.drawing import (
    ArmStyle,
    arm_styles,
    figure_label,
    label_logarithmic,
    legend,
    panels,
    scale_values,
)
from bclightning.compare.figures import metric_salt
from bclightning.compare.metric import Metric
from bclightning.errors import UserError
from bclightning.formatting import markdown_text, printable
from bclightning.runs.record import RunRecord
from bclightning.storage import write_text
from bclightning.sweep.definition import Definition, Range

TRIALS = "trials.csv"
SEARCH_FIGURE = "search.png"

# The columns before those of what was searched, and the one after.
_COLUMNS = ("arm", "trial", "status", "best_score")
_REASON = "reason"

# The columns of tables that version 0.1.0 wrote, by today's names.
_RENAMED = {"method": "arm", "validation_error": "best_score"}

# Names of what is drawn of an arm.
TRIALS_DRAWN = "trials"
CHOSEN_DRAWN = "chosen"
UNFINISHED_DRAWN = "unfinished"

# Inches from an arm's points to the next arm's at the same value.
ASIDE = 0.04

# Room above the values for the crosses of trials that did not finish, and the height of a line.
_ROOM = 0.25
_LINE = 0.03


@dataclass(frozen=True)
class Trial:
    """A trial of a search.

    Attributes:
        arm: The arm that it tried a setting of.
        number: Its place in the arm's study.
        status: ``finished``, or how it ended.
        best_score: The monitored metric at the best epoch; ``None`` if it has none.
        searched: Value of each option that was searched, as text.
    """

    arm: str
    number: int
    status: str
    best_score: float | None
    searched: dict[str, str]


def write_trials(folder: Path, runs: Sequence[RunRecord], definition: Definition) -> None:
    """Write the table of a sweep's trials into its page's folder.

    Without trials among `runs`, as when a page is made of itself, a table that is there stays.
    """
    trials = [
        (run, run.trial)
        for run in runs
        if run.stage == "tune" and run.trial is not None and run.arm_name in definition.arms
    ]
    if not trials:
        return
    order = {arm: place for place, arm in enumerate(definition.arms)}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS, *definition.space, _REASON])
    for run, number in sorted(trials, key=lambda each: (order[each[0].arm_name], each[1])):
        # A recipe names an option without the level that configurations have below a class.
        options = {
            key.replace(".init_args", ""): value for key, value in run.hyperparameters.items()
        }
        searched = [options.get(key.replace(".init_args", "")) for key in definition.space]
        ended = (run.status, run.best_score)
        row = [run.arm_name, number, *ended, *searched, run.reason]
        writer.writerow([printable(cell) if isinstance(cell, str) else cell for cell in row])
    write_text(folder / TRIALS, text.getvalue())


def read_trials(folder: Path) -> list[Trial]:
    """The trials of a page's folder, of this version's table or an earlier one's.

    Returns:
        The trials; none if there is no table of them.

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
    row = {_RENAMED.get(key, key): value for key, value in row.items()}
    arm, number, status, score = (row.pop(column) for column in _COLUMNS)
    # For people to read; early tables have none.
    row.pop(_REASON, None)
    return Trial(arm, int(number), status, float(score) if score else None, row)


def trials_digest(folder: Path, monitor: Metric) -> str:
    """A checksum of what the figure is drawn from."""
    return hashlib.sha256(metric_salt(monitor) + (folder / TRIALS).read_bytes()).hexdigest()


def trials_section(folder: Path, monitor: Metric) -> list[str]:
    """The part of a page that shows the search; nothing if there was none.

    Args:
        folder: The page's folder.
        monitor: The metric that chose among the trials.
    """
    trials = read_trials(folder)
    if not trials:
        return []
    counts = Counter(trial.status for trial in trials)
    ends = ", ".join(f"{count} {markdown_text(status)}" for status, count in sorted(counts.items()))
    metric = "Validation error" if monitor.is_error else f"Best {markdown_text(monitor.name)}"
    caption = (
        f"{metric} of the search's trials; each point is one run, arms side by side where they "
        "share a value, and a ring marks the one whose setting was chosen"
    )
    if set(counts) - {"finished"}:
        caption += "; crosses, above, are trials that did not finish"
    return [
        "## Search",
        f"{len(trials)} trials ({ends}); [{TRIALS}]({TRIALS}) has each.",
        f"![{caption}.]({SEARCH_FIGURE})\n\n*{caption}.*",
    ]


def draw_trials(folder: Path, definition: Definition, comparison: Comparison) -> Figure:
    """The trials' values of the monitored metric, a searched option a panel.

    Trials are points, and not joined: each is one run of one seed.

    Args:
        folder: The page's folder.
        definition: The sweep's definition.
        comparison: The page's comparison, in whose order arms have their colours.
    """
    trials = read_trials(folder)
    styles = arm_styles(comparison, definition.arms)
    order = list(styles.values())
    arms = sorted(definition.arms, key=lambda arm: order.index(styles[arm]))
    monitor = comparison.monitor
    finished = [t.best_score for t in trials if t.status == "finished" and t.best_score is not None]
    unfinished = any(trial.status != "finished" for trial in trials)
    figure, places = panels(len(definition.space), 3.8, most=2)
    for axes, (option, space) in zip(places, definition.space.items(), strict=True):
        numbers = isinstance(space, Range)
        for place, arm in enumerate(arms):
            mine = [trial for trial in trials if trial.arm == arm]
            # Arms share the search's first draws, and stand side by side there.
            aside = ScaledTranslation(
                ASIDE * (place - (len(arms) - 1) / 2), 0, figure.dpi_scale_trans
            )
            _draw_arm(axes, mine, option, numbers, styles[arm], arm, aside)
            _draw_chosen(axes, _chosen(mine, monitor), option, numbers, styles[arm], aside)
            # On a line of each arm's own above the values, since all share the search's draws.
            _draw_unfinished(axes, mine, option, numbers, styles[arm], 0.98 - _LINE * place)
        if isinstance(space, Range) and space.low < space.high:
            axes.set_xscale("log" if space.log else "linear")
            # The whole range, whether or not a trial lies near its ends.
            axes.set_xlim(space.low, space.high)
            if space.log:
                label_logarithmic(axes.xaxis)
        scale_values(axes, monitor, finished)
        if unfinished:
            bottom, top = axes.get_ylim()
            logarithmic = axes.get_yscale() == "log"
            room = top * (top / bottom) ** _ROOM if logarithmic else top + _ROOM * (top - bottom)
            axes.set_ylim(bottom, room)
        axes.set(xlabel=figure_label(option), ylabel=figure_label(monitor.axis_label))
    marks = [_mark("o", "chosen", mfc="none", ms=10)]
    marks += [_mark("x", "did not finish", ms=5)] if unfinished else []
    legend(figure, marks)
    return figure


def _mark(marker: str, label: str, **style: Any) -> Line2D:
    """A legend's handle of a mark that any arm may have."""
    return Line2D([], [], color="0.35", linestyle="None", marker=marker, label=label, **style)


def _chosen(trials: Sequence[Trial], monitor: Metric) -> Trial | None:
    """The trial that gave its arm the setting: of equal ones the first."""
    sign = -1.0 if monitor.mode == "max" else 1.0
    known = [
        (sign * trial.best_score, trial.number, trial)
        for trial in trials
        if trial.status == "finished" and trial.best_score is not None
    ]
    return min(known, key=lambda each: each[:2])[2] if known else None


def _value(trial: Trial, option: str, numbers: bool) -> float | str | None:
    """Value of an option that was searched, ``None`` where the table tells none."""
    text = trial.searched.get(option)
    if not numbers or not text:
        return text or None
    try:
        return float(text)
    except ValueError:
        return None


def _draw_arm(
    axes: Axes,
    trials: Sequence[Trial],
    option: str,
    numbers: bool,
    style: ArmStyle,
    label: str,
    aside: Transform,
) -> None:
    points = [
        (value, trial.best_score)
        for trial in trials
        if trial.status == "finished"
        and trial.best_score is not None
        and (value := _value(trial, option, numbers)) is not None
    ]
    (line,) = axes.plot(
        [x for x, _ in points],
        [y for _, y in points],
        linestyle="None",
        marker=style.marker,
        ms=5.5,
        color=style.colour,
        clip_on=False,
        label=figure_label(label),
        gid=TRIALS_DRAWN,
    )
    # Now that the axes know the values as they are.
    line.set_transform(axes.transData + aside)


def _draw_chosen(
    axes: Axes, trial: Trial | None, option: str, numbers: bool, style: ArmStyle, aside: Transform
) -> None:
    value = None if trial is None else _value(trial, option, numbers)
    if trial is not None and value is not None and trial.best_score is not None:
        ring: dict[str, Any] = {
            "color": style.colour,
            "mfc": "none",
            "clip_on": False,
            "gid": CHOSEN_DRAWN,
        }
        (line,) = axes.plot([value], [trial.best_score], "o", ms=11, **ring)
        line.set_transform(axes.transData + aside)


def _draw_unfinished(
    axes: Axes, trials: Sequence[Trial], option: str, numbers: bool, style: ArmStyle, height: float
) -> None:
    tried = [_value(trial, option, numbers) for trial in trials if trial.status != "finished"]
    values = [value for value in tried if value is not None]
    heights = [height] * len(values)
    transform = axes.get_xaxis_transform()
    axes.plot(
        values, heights, "x", color=style.colour, ms=5, transform=transform, gid=UNFINISHED_DRAWN
    )
