"""Which of the found runs are compared: `--filter` and `--exclude`."""

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from bclightning.compare.loading import FoundRun
from bclightning.compare.selection import some
from bclightning.errors import UserError, nearest
from bclightning.formatting import printable
from bclightning.runs.record import RunRecord

# What a run can be filtered by, beside its hyperparameters.
FIELDS = (
    *("run_id", "experiment", "arm", "regularizer", "data", "seed", "epochs", "stage", "status"),
    *("monitor", "best_epoch", "best_score", "test_value", "started", "train_seconds"),
)

_CONDITION = re.compile(r"\s*(?P<field>[^=!<>]+?)\s*(?P<sign>!=|<=|>=|=|<|>)\s*(?P<value>.*?)\s*")

_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Condition:
    """A condition on a run.

    Attributes:
        field: A field of the record, or a hyperparameter or the last part of its name.
        sign: How field and value are compared.
        value: The value, as text; ``*`` stands for any characters after ``=`` and ``!=``.
    """

    field: str
    sign: str
    value: str

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Read a condition such as ``seed>3``.

        Raises:
            UserError: It is none.

        Example:
            >>> Condition.parse("model.learning_rate <= 0.01")
            Condition(field='model.learning_rate', sign='<=', value='0.01')
        """
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise UserError(
                f"--filter {text!r} is not a condition; write FIELD=VALUE, !=, <, <=, > or >=, "
                "as regularizer=stochastic or seed>3"
            )
        return cls(**match.groupdict())

    def __str__(self) -> str:
        """The condition as it was written."""
        return f"{self.field}{self.sign}{self.value}"

    def holds(self, value: object) -> bool:
        """Whether a run with this value of the field meets the condition.

        Numbers are compared as numbers, and text as text, so that times are, too.

        Example:
            >>> Condition.parse("seed>9").holds(10), Condition.parse("arm=sgd*").holds("sgd-scaled")
            (True, True)
        """
        if self.sign in _SIGNS:
            if value is None:
                return False
            number, bound = _number(value), _number(self.value)
            if number is not None and bound is not None:
                return _SIGNS[self.sign](number, bound)
            return _SIGNS[self.sign](str(value), self.value)
        return self._equals(value) == (self.sign == "=")

    def _equals(self, value: object) -> bool:
        number, wanted = _number(value), _number(self.value)
        if number is not None and wanted is not None:
            return math.isclose(number, wanted, rel_tol=1e-9)
        text = "" if value is None else str(value)
        if isinstance(value, bool):
            return text.lower() == self.value.lower()
        return fnmatchcase(text, self.value)


def _number(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None


def select_runs(
    found: Sequence[FoundRun], conditions: Sequence[str] = (), exclude: Sequence[str] = ()
) -> tuple[list[FoundRun], list[str]]:
    """The runs that meet all conditions and are not excluded by name.

    Args:
        found: The runs.
        conditions: Conditions as text, as of `--filter`.
        exclude: Ids of runs, as of `--exclude`.

    Returns:
        The runs, and sentences that say what was left out.

    Raises:
        UserError: A condition is none or no run meets them all, or there is no run of a name.
    """
    notes: list[str] = []
    kept = list(found)
    for condition in map(Condition.parse, conditions):
        before = kept
        kept = _meeting(before, condition)
        if len(kept) < len(before):
            notes.append(f"Left out by --filter {condition}: {_count(len(before) - len(kept))}.")
    if exclude:
        known = {run.record.run_id for run in found}
        for name in exclude:
            if name not in known:
                hint = nearest(name, known)
                raise UserError(f"--exclude {name}: there is no such run among those found{hint}")
        left = [run for run in kept if run.record.run_id in exclude]
        kept = [run for run in kept if run.record.run_id not in exclude]
        if left:
            notes.append(f"Left out by --exclude: {some(run.record.run_id for run in left)}.")
    if found and not kept:
        raise UserError("--exclude leaves no run to compare")
    return kept, notes


def _count(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"


def _meeting(runs: Sequence[FoundRun], condition: Condition) -> list[FoundRun]:
    values = _values([run.record for run in runs], condition.field)
    kept = [run for run, value in zip(runs, values, strict=True) if condition.holds(value)]
    if runs and not kept:
        there = sorted({printable(str(value)) for value in values if value is not None})
        told = f"; the runs have {some(there)}" if there else ""
        raise UserError(f"no run meets --filter {condition}{told}")
    return kept


def _values(runs: Sequence[RunRecord], field: str) -> list[object]:
    if field == "arm":
        return [run.arm_name for run in runs]
    if field in FIELDS:
        return [getattr(run, field) for run in runs]
    known = {key for run in runs for key in run.hyperparameters}
    keys = [field] if field in known else sorted(k for k in known if k.endswith(f".{field}"))
    if len(keys) == 1:
        return [run.hyperparameters.get(keys[0]) for run in runs]
    if keys:
        raise UserError(f"--filter {field} may be {' or '.join(keys)}; give the whole name")
    hint = nearest(field, [*FIELDS, *known])
    raise UserError(
        f"--filter knows no {field!r}{hint}; there are {', '.join(FIELDS)} and the runs' "
        "hyperparameters"
    )
