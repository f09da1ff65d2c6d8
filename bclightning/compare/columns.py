"""The columns of a table with a row an arm: which there are, which are shown, in which order."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bclightning.compare.arms import Arm, Comparison
from bclightning.compare.statistics import Sample
from bclightning.errors import UserError, nearest
from bclightning.formatting import duration, megabytes
from bclightning.sweep.chosen import setting_text, short_name

# What stands where there is nothing to tell.
NOTHING = "-"

# All columns, for whoever asks for them.
ALL = "all"

# Hyperparameters that are shown without being asked for, at most.
MAX_SETTINGS = 4


@dataclass(frozen=True)
class Column:
    """A column of a table with a row an arm.

    Attributes:
        name: The name that `--columns` and `--sort` know it by, which JSON has, too.
        heading: Its heading.
        cell: An arm's cell, as text.
        value: An arm's value, to sort by; ``None`` where there is none.
        parts: Columns of CSV that hold it.
        main: Whether it is among the first that are shown.
        usual: Whether it is shown without being asked for.
    """

    name: str
    heading: str
    cell: Callable[[Arm], str]
    value: Callable[[Arm], Any]
    parts: tuple[str, ...] = ()
    main: bool = False
    usual: bool = True


def columns_of(comparison: Comparison) -> list[Column]:
    """All columns of a comparison, what is read most first."""
    monitor, test = comparison.monitor, comparison.test_metric

    def interval(arm: Arm) -> str:
        # Where nothing was tested, the interval is of the monitored metric and says so.
        if arm.test is None:
            return f"{monitor.interval(arm.best_score)} (validation)"
        return test.interval(arm.test)

    def best_epoch(arm: Arm) -> str:
        mean = arm.best_epoch
        return f"{mean.mean:.0f} of {arm.runs[0].epochs}" if mean else NOTHING

    return [
        Column("arm", "arm", lambda a: a.label, lambda a: a.label, ("arm",), True),
        Column("n", "n", lambda a: str(len(a.runs)), lambda a: len(a.runs), ("n",), True),
        _sample("best_score", monitor.heading, monitor.show, lambda a: a.best_score),
        _sample("test_value", test.heading, test.show, lambda a: a.test),
        Column(
            "interval",
            "95 % interval",
            interval,
            lambda a: _mean(a.test or a.best_score),
            ("test_value_low", "test_value_high"),
            main=True,
        ),
        _sample(
            "one_bit_test_value", f"1-bit {test.heading}", test.show, lambda a: a.one_bit, True
        ),
        Column(
            "packed_bytes",
            "1-bit size",
            lambda a: megabytes(a.runs[0].packed_bytes) if a.is_binary else NOTHING,
            lambda a: a.runs[0].packed_bytes if a.is_binary else None,
            ("packed_bytes",),
            main=True,
        ),
        *_settings(comparison),
        Column(
            "eval_weights",
            "evaluation weights",
            lambda a: a.evaluation,
            lambda a: a.evaluation,
            ("eval_weights",),
        ),
        Column(
            "best_epoch",
            "best epoch",
            best_epoch,
            lambda a: _mean(a.best_epoch),
            (*_parts("best_epoch"), "epochs"),
        ),
        Column(
            "train_seconds",
            "time",
            lambda a: duration(a.seconds),
            lambda a: a.seconds,
            ("train_seconds",),
        ),
        Column(
            "paper",
            "paper %",
            lambda a: NOTHING if a.paper is None else str(a.paper),
            lambda a: _mean(a.paper),
            ("paper",),
            # The table beside the paper has the figures that have a spread.
            usual=len(comparison.beside_paper) < sum(a.paper is not None for a in comparison.arms),
        ),
        Column(
            "float_bytes",
            "32-bit size",
            lambda a: megabytes(a.runs[0].float_bytes),
            lambda a: a.runs[0].float_bytes,
            ("float_bytes",),
            usual=False,
        ),
        Column(
            "runs",
            "runs",
            lambda a: ", ".join(run.run_id for run in a.runs),
            lambda a: a.runs[0].run_id,
            ("runs",),
            usual=False,
        ),
    ]


def _sample(
    name: str,
    heading: str,
    show: Callable[[Sample | None], str],
    sample: Callable[[Arm], Sample | None],
    with_n: bool = False,
) -> Column:
    def cell(arm: Arm) -> str:
        known = sample(arm)
        # A cell says the number of its runs where that is not the row's.
        other = with_n and known is not None and known.n != len(arm.runs)
        return f"{show(known)} (n = {known.n})" if other and known else show(known)

    return Column(name, heading, cell, lambda arm: _mean(sample(arm)), _parts(name), main=True)


def _parts(name: str) -> tuple[str, ...]:
    return tuple(f"{name}_{part}" for part in ("mean", "std", "low", "high"))


def _mean(sample: Sample | None) -> float | None:
    return None if sample is None else sample.mean


def _settings(comparison: Comparison) -> list[Column]:
    """A column for each hyperparameter that differs, what the sweep chose first."""
    usual = comparison.settings[:MAX_SETTINGS]
    varied = dict.fromkeys(key for settings in comparison.varied.values() for key in settings)
    keys = dict.fromkeys([*comparison.settings, *varied])
    names = [short_name(key) for key in keys]

    def column(key: str) -> Column:
        def value(arm: Arm) -> Any:
            return arm.runs[0].hyperparameters.get(key)

        def cell(arm: Arm) -> str:
            known = value(arm)
            return NOTHING if known is None else setting_text(known)

        heading = short_name(key) if names.count(short_name(key)) == 1 else key
        return Column(key, heading, cell, value, (key,), usual=key in usual)

    return [column(key) for key in keys]


def shown_columns(comparison: Comparison, wanted: Sequence[str] | None = None) -> list[Column]:
    """The columns that are shown, of which those without content are only where asked for.

    Args:
        comparison: The comparison.
        wanted: Names of columns in their order, or ``["all"]``; the usual ones if ``None``.

    Raises:
        UserError: There is no such column; the sentence names those that there are.
    """
    known = columns_of(comparison)
    if wanted is None or list(wanted) == [ALL]:
        return [
            column
            for column in known
            if (wanted or column.usual)
            and any(column.cell(arm) not in ("", NOTHING) for arm in comparison.arms)
        ]
    return [_named(known, name, "--columns") for name in wanted]


def _named(columns: Iterable[Column], name: str, option: str) -> Column:
    known = {column.name: column for column in columns}
    if name in known:
        return known[name]
    by_end = [column for column in known.values() if short_name(column.name) == name]
    if len(by_end) == 1:
        return by_end[0]
    hint = nearest(name, known)
    raise UserError(f"{option} knows no column {name!r}{hint}; there are {', '.join(known)}")


def in_order(comparison: Comparison, by: str, reverse: bool = False) -> Comparison:
    """The comparison with its arms in the order of a column; those without a value come last.

    Args:
        comparison: The comparison.
        by: Name of the column.
        reverse: Whether the greatest comes first.

    Raises:
        UserError: There is no such column.
    """
    column = _named(columns_of(comparison), by, "--sort")
    known = [arm for arm in comparison.arms if column.value(arm) is not None]
    rest = [arm for arm in comparison.arms if column.value(arm) is None]
    numbers = all(isinstance(column.value(arm), (int, float)) for arm in known)
    known.sort(
        key=lambda arm: column.value(arm) if numbers else str(column.value(arm)), reverse=reverse
    )
    return replace(comparison, arms=(*known, *rest))
