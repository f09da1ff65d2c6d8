"""From run records to comparisons: arms, pairs, and what was left out and why."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bclightning.compare.arms import Arm, Comparison, Pair, run_result
from bclightning.compare.dataframe import data_frame
from bclightning.compare.equivalence import check_margin
from bclightning.compare.metric import Metric
from bclightning.compare.mixture import mixture_notes
from bclightning.compare.paper import paper_error
from bclightning.compare.plain import flat_rows
from bclightning.compare.power import LEVEL, seeds_to_settle
from bclightning.compare.render import markdown, plain_text
from bclightning.compare.selection import ended, names_of, setting_key, some, without_doubles
from bclightning.compare.statistics import Sample, WelchTest, holm, welch
from bclightning.errors import UserError
from bclightning.runs.record import RunRecord
from bclightning.sweep.chosen import searched_options, setting_text
from bclightning.vocabulary import REGULARIZERS, TEST_ERROR

# What stands for the paper where arms have their labels.
PAPER = "paper"


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


def compare(
    runs: Sequence[RunRecord],
    margin: float | None = None,
    searched: Sequence[str] | None = None,
) -> Comparisons:
    """Compare runs: one comparison for each data set and monitored metric.

    Runs that have not finished are left out, and so are a sweep's trials where there are final
    runs: trials were chosen among, so their errors flatter. Runs by hand in a sweep's experiment
    are no part of its protocol and left out too. The comparison's notes say what was left out, and
    in what the runs differ beside their settings: epochs, experiment, code, versions, machine.

    Args:
        runs: The records, as from `bclightning.compare.loading.load_runs`.
        margin: The largest difference of test results that does not matter, in their unit: tables
            then say whether one bit is equivalent to real weights.
        searched: Hyperparameters that a sweep searched; if ``None``, those in which its trials
            among `runs` differ.

    Raises:
        UserError: There is nothing to compare, runs that would be compared saw different images or
            were tested by different metrics, or the margin is not a number above 0.

    Example:
        >>> def run(arm, seed, error):
        ...     return RunRecord(f"{arm}{seed}", "e", arm, "digits", seed, status="finished",
        ...                      best_epoch=1, best_score=error)
        >>> records = [run("none", 0, 2.0), run("none", 1, 3.0), run("dropout", 0, 1.0)]
        >>> [(arm.label, str(arm.best_score)) for arm in compare(records)[0].arms]
        [('none', '2.50 ± 0.71'), ('dropout', '1.00')]
    """
    check_margin(margin)
    options = searched_options(runs) if searched is None else searched
    found, notes = ended(runs)
    if not found:
        raise UserError(" ".join(["no finished run to compare;", *notes]).rstrip("; "))
    groups: dict[tuple[str, str, str], list[RunRecord]] = {}
    for run in found:
        groups.setdefault((run.data, run.monitor, run.monitor_mode), []).append(run)
    return Comparisons(_compare(groups[key], notes, options, margin) for key in sorted(groups))


def _compare(
    runs: list[RunRecord], notes: Sequence[str], searched: Sequence[str], margin: float | None
) -> Comparison:
    first = runs[0]
    unchecked = _check_same_images(runs)
    test_metric = _test_metric(runs)
    kept, doubles = without_doubles(runs)
    arms, untested = _tested_runs_alone(_arms(kept, has_paper=test_metric.name == TEST_ERROR))
    tested_on: Literal["test", "validation"] = (
        "test" if all(arm.test_values for arm in arms) else "validation"
    )
    said = [*notes, *unchecked, *doubles, *untested, *mixture_notes(arms)]
    if sum(len(arm.runs) for arm in arms) == 1:
        said.append("There is only one run, and nothing to compare it with.")
    elif any(len(arm.runs) == 1 for arm in arms):
        said.append("Arms with a single run are not tested for significance.")
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
        settings=_settings(arms, searched, varied),
        margin=margin,
    )


def _settings(
    arms: Sequence[Arm], searched: Sequence[str], varied: Sequence[str]
) -> tuple[str, ...]:
    """The hyperparameters that say how arms were set: searched ones, else those that differ.

    A label has what tells the settings of an arm apart, and an arm's name what its regularizer is.
    """

    def values(key: str) -> list[object]:
        return [arm.runs[0].hyperparameters.get(key) for arm in arms]

    if searched:
        # A definition names an option without the level that configurations have below a class.
        names = {_bare(key) for key in searched}
        keys = dict.fromkeys(key for arm in arms for key in arm.runs[0].hyperparameters)
        return tuple(key for key in keys if _bare(key) in names)
    if any(arm.label != arm.name for arm in arms):
        return ()
    return tuple(key for key in varied if values(key) != [arm.name for arm in arms])


def _bare(key: str) -> str:
    return key.replace(".init_args", "")


def _tested_runs_alone(arms: Sequence[Arm]) -> tuple[list[Arm], list[str]]:
    """The arms without runs that have no test result where others of the arm have one.

    So all figures of an arm are of the same n runs.
    """
    found, notes = [], []
    for arm in arms:
        tested = tuple(run for run in arm.runs if run_result(run) is not None)
        if 0 < len(tested) < len(arm.runs):
            missing = names_of(run for run in arm.runs if run_result(run) is None)
            notes.append(f"Left out of {arm.label} because they have no test result: {missing}.")
            arm = replace(arm, runs=tested)
        found.append(arm)
    return found, notes


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
                f"The {names} of {some(unknown)} are not recorded, so it is not checked that they "
                f"are those of {names_of(known)}."
            )
    return notes


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


def _arms(runs: Sequence[RunRecord], has_paper: bool) -> list[Arm]:
    by_name: dict[str, dict[str, list[RunRecord]]] = {}
    for run in runs:
        by_name.setdefault(run.arm_name, {}).setdefault(setting_key(run), []).append(run)
    arms: dict[str, Arm] = {}
    for name in sorted(by_name, key=_place):
        settings = list(by_name[name].values())
        for label, same in zip(
            _labels(name, [same[0] for same in settings]), settings, strict=True
        ):
            paper = paper_error(same[0].data, name) if has_paper else None
            ordered = sorted(same, key=lambda run: run.seed)
            # Another arm may have the very name that this one's settings make.
            label = next(each for each in _numbered(label) if each not in arms)
            arms[label] = Arm(label, tuple(ordered), paper)
    return list(arms.values())


def _labels(name: str, runs: Sequence[RunRecord]) -> list[str]:
    """A label for each setting of an arm: its name, and as much as it takes to tell them apart."""
    varied = _varied([run.hyperparameters for run in runs])

    def told(text: Callable[[object], str]) -> list[str]:
        return [
            "".join(
                f", {key.rpartition('.')[2]}={text(run.hyperparameters.get(key))}" for key in varied
            )
            for run in runs
        ]

    labels = told(setting_text)
    if len(set(labels)) < len(set(told(repr))):
        labels = told(str)
    epochs = [f", epochs={run.epochs}" for run in runs]
    evaluations = [f", evaluation weights={Arm('', (run,), None).evaluation}" for run in runs]
    for more in (epochs, evaluations):
        extended = [label + addition for label, addition in zip(labels, more, strict=True)]
        if len(set(extended)) > len(set(labels)):
            labels = extended
    return [f"{name}{label}" for label in labels]


def _numbered(label: str) -> Iterator[str]:
    yield label
    for number in itertools.count(2):
        yield f"{label} ({number})"


def _place(arm: str) -> tuple[int, str]:
    """The paper's order for its regularizers; other arms follow by name."""
    known: tuple[str, ...] = REGULARIZERS
    return (known.index(arm) if arm in known else len(known), arm)


def _varied(settings: Sequence[dict[str, object]]) -> list[str]:
    """The hyperparameters that are not the same in all."""
    keys = sorted({key for setting in settings for key in setting})
    return [key for key in keys if len({json.dumps(s.get(key)) for s in settings}) > 1]


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
            (_Labelled(PAPER, arm.paper), _Labelled(arm.label, arm.test))
            for arm in arms
            if arm.paper and arm.test and arm.paper.n > 1 and arm.test.n > 1
        ]
    )


def _tested(pairs: Sequence[tuple[_Labelled, _Labelled]]) -> list[Pair]:
    """Test each pair for a difference, and correct for the number of pairs."""
    tests: list[WelchTest | None] = [welch(second.sample, first.sample) for first, second in pairs]
    corrected = holm([None if test is None else test.p for test in tests])
    number = sum(test is not None for test in tests)
    return [
        Pair(
            first=first.label,
            second=second.label,
            difference=second.sample.mean - first.sample.mean,
            standard_errors=None if test is None else test.standard_errors,
            p=None if test is None else test.p,
            p_holm=p_holm,
            # The paper has the runs that it has.
            seeds=None
            if p_holm is None or p_holm < LEVEL or first.label == PAPER
            else seeds_to_settle(first.sample, second.sample, tests=number),
        )
        for (first, second), test, p_holm in zip(pairs, tests, corrected, strict=True)
    ]
