"""From run records to comparisons: arms, pairs, and what was left out and why."""

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bclightning.compare.arms import Arm, Comparison, Pair
from bclightning.compare.dataframe import data_frame
from bclightning.compare.metric import Metric
from bclightning.compare.paper import paper_error
from bclightning.compare.render import flat_rows, markdown, plain_text
from bclightning.compare.statistics import Sample, WelchTest, holm, welch
from bclightning.errors import UserError
from bclightning.runs.record import RunRecord
from bclightning.vocabulary import REGULARIZERS, TEST_ERROR

# Names of runs in a sentence, at most.
MAX_NAMES = 3


class Comparisons(list[Comparison]):
    """The comparisons of some runs, which show themselves as tables.

    Printed they are plain text; a notebook shows Markdown.
    """

    def to_dataframe(self) -> Any:
        """A ``pandas.DataFrame`` with a row an arm and the columns of ``bcl compare --format csv``.

        Raises:
            UserError: pandas is not installed.
        """
        return data_frame(flat_rows(self))

    def __str__(self) -> str:
        """The tables as plain text."""
        return plain_text(self)

    def __repr__(self) -> str:
        """The tables as plain text, so that they are seen where a value is echoed."""
        return plain_text(self)

    def _repr_markdown_(self) -> str:
        return markdown(self)


def compare(runs: Sequence[RunRecord]) -> Comparisons:
    """Compare runs: one comparison for each data set and monitored metric.

    Runs that have not finished are left out, and so are a sweep's trials where there are final
    runs: trials were chosen among, so their errors flatter.

    Args:
        runs: The records, as from `bclightning.compare.loading.load_runs`.

    Raises:
        UserError: There is nothing to compare, or runs that would be compared saw different images
            or were tested by different metrics.

    Example:
        >>> def run(arm, seed, error):
        ...     return RunRecord(f"{arm}{seed}", "e", arm, "digits", seed, status="finished",
        ...                      best_epoch=1, best_score=error)
        >>> records = [run("none", 0, 2.0), run("none", 1, 3.0), run("dropout", 0, 1.0)]
        >>> [(arm.label, str(arm.best_score)) for arm in compare(records)[0].arms]
        [('none', '2.50 ± 0.71'), ('dropout', '1.00')]
    """
    ended, notes = _ended(runs)
    if not ended:
        raise UserError(" ".join(["no finished run to compare;", *notes]).rstrip("; "))
    groups: dict[tuple[str, str, str], list[RunRecord]] = {}
    for run in ended:
        groups.setdefault((run.data, run.monitor, run.monitor_mode), []).append(run)
    return Comparisons(_compare(groups[key], notes) for key in sorted(groups))


def _ended(runs: Sequence[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    notes = []
    judged = [run for run in runs if run.stage != "tune"]
    if any(run.status == "finished" for run in judged) and len(judged) < len(runs):
        notes.append(f"Left out: {len(runs) - len(judged)} trials of tuning.")
        runs = judged
    others = Counter(run.status for run in runs if run.status != "finished")
    if others:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(others.items()))
        notes.append(f"Left out, for they have not finished: {counts}.")
    ended = [run for run in runs if run.status == "finished" and run.best_score is not None]
    return ended, notes


def _compare(runs: list[RunRecord], notes: Sequence[str]) -> Comparison:
    first = runs[0]
    unchecked = _check_same_images(runs)
    test_metric = _test_metric(runs)
    kept, doubles = _without_doubles(runs)
    arms = _arms(kept, has_paper=test_metric.name == TEST_ERROR)
    tested_on: Literal["test", "validation"] = (
        "test" if all(arm.test_values for arm in arms) else "validation"
    )
    said = [*notes, *unchecked, *doubles]
    if len(kept) == 1:
        said.append("One run alone: there is nothing to compare it with.")
    elif any(len(arm.runs) == 1 for arm in arms):
        said.append("Arms with n = 1 are not tested: one run says nothing of chance.")
    varied = _varied([arm.runs[0].hyperparameters for arm in arms])
    return Comparison(
        data=first.data,
        monitor=Metric(first.monitor, first.monitor_mode),
        test_metric=test_metric,
        arms=tuple(arms),
        pairs=tuple(_pairs(arms, tested_on)),
        beside_paper=tuple(_beside_paper(arms)),
        tested_on=tested_on,
        varied={
            arm.label: {key: arm.runs[0].hyperparameters.get(key) for key in varied} for arm in arms
        },
        notes=tuple(said),
    )


def _check_same_images(runs: Sequence[RunRecord]) -> list[str]:
    """Refuse runs on other images; what cannot be checked, for it was not recorded, is noted."""
    notes = []
    for what, names in (("split_sizes", "splits"), ("checksums", "files")):
        known = [run for run in runs if getattr(run, what)]
        for run in known:
            if getattr(run, what) != getattr(known[0], what):
                raise UserError(
                    f"{known[0].run_id} and {run.run_id} have different {names} of {run.data}, so "
                    "they cannot be compared; name runs on the same images"
                )
        unknown = [run.run_id for run in runs if not getattr(run, what)]
        if known and unknown:
            notes.append(
                f"The {names} of {_some(unknown)} are not recorded, so it is not checked that they "
                f"are those of {_some([run.run_id for run in known])}."
            )
    return notes


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MAX_NAMES])
    return shown if len(names) <= MAX_NAMES else f"{shown} and {len(names) - MAX_NAMES} more"


def _test_metric(runs: Sequence[RunRecord]) -> Metric:
    # A run that was not tested may name a metric, but has no value of it.
    tested = [run for run in runs if run.test] or [runs[0]]
    for run in tested:
        if run.test_metric != tested[0].test_metric:
            raise UserError(
                f"{tested[0].run_id} was tested by {tested[0].test_metric} and {run.run_id} by "
                f"{run.test_metric}, so they cannot be compared; name runs with one test metric"
            )
    return Metric(tested[0].test_metric)


def _without_doubles(runs: Sequence[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """One run of each setting and seed: the same run twice is no evidence."""
    kept: dict[tuple[str, str, int], RunRecord] = {}
    doubles = []
    for run in sorted(runs, key=lambda run: (run.started, run.run_id)):
        key = (run.arm_name, _frozen(run.hyperparameters), run.seed)
        if key in kept:
            doubles.append(
                f"Left out: {kept[key].run_id}, of the same setting and seed as {run.run_id}."
            )
        kept[key] = run
    return list(kept.values()), doubles


def _frozen(hyperparameters: dict[str, object]) -> str:
    return json.dumps(hyperparameters, sort_keys=True)


def _arms(runs: Sequence[RunRecord], has_paper: bool) -> list[Arm]:
    by_name: dict[str, dict[str, list[RunRecord]]] = {}
    for run in runs:
        settings = by_name.setdefault(run.arm_name, {})
        settings.setdefault(_frozen(run.hyperparameters), []).append(run)
    arms = []
    for name in sorted(by_name, key=_place):
        settings = by_name[name]
        varied = _varied([same[0].hyperparameters for same in settings.values()])
        for same in settings.values():
            apart = "".join(
                f", {key.rpartition('.')[2]}={setting_text(same[0].hyperparameters.get(key))}"
                for key in varied
            )
            paper = paper_error(same[0].data, name) if has_paper else None
            ordered = sorted(same, key=lambda run: run.seed)
            arms.append(Arm(f"{name}{apart}", tuple(ordered), paper))
    return arms


def _place(arm: str) -> tuple[int, str]:
    """The paper's order for its regularizers; other arms follow by name."""
    known: tuple[str, ...] = REGULARIZERS
    return (known.index(arm) if arm in known else len(known), arm)


def _varied(settings: Sequence[dict[str, object]]) -> list[str]:
    """The hyperparameters that are not the same in all."""
    keys = sorted({key for setting in settings for key in setting})
    return [key for key in keys if len({json.dumps(s.get(key)) for s in settings}) > 1]


def setting_text(value: object) -> str:
    """A hyperparameter's value in few digits.

    Example:
        >>> setting_text(0.0019623393773776725), setting_text("adam")
        ('0.001962', 'adam')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class _Labelled:
    """A sample, and what it is of.

    Attributes:
        label: Label of an arm, or ``paper``.
        sample: The sample.
    """

    label: str
    sample: Sample


def _pairs(arms: Sequence[Arm], tested_on: str) -> list[Pair]:
    # One run alone says nothing of chance, so there is nothing to test it by.
    samples = [
        _Labelled(arm.label, sample)
        for arm in arms
        if (sample := arm.test if tested_on == "test" else arm.best_score) and len(arm.runs) > 1
    ]
    return _tested(list(itertools.combinations(samples, 2)))


def _beside_paper(arms: Sequence[Arm]) -> list[Pair]:
    return _tested(
        [
            (_Labelled("paper", arm.paper), _Labelled(arm.label, arm.test))
            for arm in arms
            if arm.paper and arm.test and arm.paper.n > 1 and arm.test.n > 1
        ]
    )


def _tested(pairs: Sequence[tuple[_Labelled, _Labelled]]) -> list[Pair]:
    """Test each pair for a difference, and correct for the number of pairs."""
    tests: list[WelchTest | None] = [welch(second.sample, first.sample) for first, second in pairs]
    corrected = holm([None if test is None else test.p for test in tests])
    return [
        Pair(
            first=first.label,
            second=second.label,
            difference=second.sample.mean - first.sample.mean,
            standard_errors=None if test is None else test.standard_errors,
            p=None if test is None else test.p,
            p_holm=p_holm,
        )
        for (first, second), test, p_holm in zip(pairs, tests, corrected, strict=True)
    ]
