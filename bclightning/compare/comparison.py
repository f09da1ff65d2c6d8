"""From run records to a comparison: rows, samples, pairs, and what was left out and why."""

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from bclightning.compare.paper import paper_error
from bclightning.compare.statistics import Sample, WelchTest, holm, summarize, welch
from bclightning.errors import UserError
from bclightning.runs.record import RunRecord

# The paper's order; other rows follow by name.
ORDER = ("none", "dropout", "deterministic", "stochastic")


@dataclass(frozen=True)
class Row:
    """Runs that differ by their seed alone.

    Attributes:
        label: The method, and where it was run in several settings, what tells them apart.
        runs: The records, by seed.
        paper: The paper's test error, where it gives one.
    """

    label: str
    runs: tuple[RunRecord, ...]
    paper: Sample | None

    @property
    def validation(self) -> Sample:
        """The validation error at the best epochs, in percent."""
        return summarize([run.best_score for run in self.runs if run.best_score is not None])

    @property
    def test_errors(self) -> list[float]:
        """Test errors in percent, none where the test set was not touched."""
        return [error for run in self.runs if (error := run.test_value) is not None]

    @property
    def test(self) -> Sample | None:
        """The test error under the method that stands for the runs."""
        return summarize(self.test_errors) if self.test_errors else None

    @property
    def one_bit(self) -> Sample | None:
        """The test error with binary weights, with the batch-norm statistics that were chosen."""
        return self.test_with("binary")

    def test_with(self, weights: str, batch_norm: str | None = None) -> Sample | None:
        """The test error under a method of section 2.6, of the runs where it was measured.

        Args:
            weights: ``binary``, ``real`` or ``ensemble``.
            batch_norm: ``as trained`` or ``re-estimated``; what was chosen when left out.
        """
        errors = [run.tested_with(weights, batch_norm) for run in self.runs]
        found = [error for error in errors if error is not None]
        return summarize(found) if found else None

    @property
    def chosen(self) -> str:
        """The test-time weights, and the batch-norm statistics where they are re-estimated."""
        chosen = self.runs[0].evaluation
        again = ", BN re-estimated" if chosen.get("batch_norm") == "re-estimated" else ""
        return f"{chosen.get('weights', '-')}{again}"

    @property
    def best_epoch(self) -> Sample:
        """The best epoch, counted from 1."""
        return summarize([run.best_epoch + 1 for run in self.runs if run.best_epoch is not None])

    @property
    def seconds(self) -> float:
        """Time in training and validation: the median, which one halted run does not change."""
        return median(run.train_seconds for run in self.runs)


@dataclass(frozen=True)
class Pair:
    """Two rows, or the paper's figure and a row, tested for a difference.

    Attributes:
        first: Label of one row, or ``paper``.
        second: Label of the other.
        difference: Mean error of the second less that of the first, in percentage points.
        standard_errors: The same in standard errors of that difference; ``None`` as `p`.
        p: By Welch's t-test; ``None`` where it cannot be made.
        p_holm: Corrected for the number of pairs.
    """

    first: str
    second: str
    difference: float
    standard_errors: float | None
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class Comparison:
    """The runs on one data set.

    Attributes:
        data: The data set.
        rows: One a method and setting.
        pairs: Each two of those with more than one run.
        beside_paper: The paper's figure and a row, for each row where both have a spread.
        on: What was tested: ``test`` error, or ``validation`` error where no test error is known.
        varied: Settings that differ between rows, by row and name.
        notes: What was left out, in sentences.
    """

    data: str
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    beside_paper: tuple[Pair, ...]
    on: str
    varied: dict[str, dict[str, object]]
    notes: tuple[str, ...]

    @property
    def runs(self) -> list[RunRecord]:
        """All runs, row by row."""
        return [run for row in self.rows for run in row.runs]


def compare(records: Sequence[RunRecord]) -> list[Comparison]:
    """Compare runs, one comparison a data set.

    Runs that have not finished are left out, and so are a sweep's trials where there are final
    runs: trials were chosen among, so their errors flatter.

    Raises:
        UserError: There is nothing to compare, or runs on one data set saw different images.

    Example:
        >>> def run(method, seed, error):
        ...     return RunRecord(f"{method}{seed}", "e", method, "digits", seed, status="finished",
        ...                      best_epoch=1, best_score=error)
        >>> records = [run("none", 0, 2.0), run("none", 1, 3.0), run("dropout", 0, 1.0)]
        >>> [(row.label, str(row.validation)) for row in compare(records)[0].rows]
        [('none', '2.50 ± 0.71'), ('dropout', '1.00')]
    """
    ended, notes = _ended(records)
    if not ended:
        raise UserError(" ".join(["no finished run to compare;", *notes]).rstrip("; "))
    by_data: dict[str, list[RunRecord]] = {}
    for record in ended:
        by_data.setdefault(record.data, []).append(record)
    return [_compare(data, runs, notes) for data, runs in sorted(by_data.items())]


def _ended(records: Sequence[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    notes = []
    judged = [r for r in records if r.stage != "tune"]
    if any(r.status == "finished" for r in judged) and len(judged) < len(records):
        notes.append(f"Left out: {len(records) - len(judged)} trials of tuning.")
        records = judged
    others = Counter(r.status for r in records if r.status != "finished")
    if others:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(others.items()))
        notes.append(f"Left out, for they have not finished: {counts}.")
    ended = [r for r in records if r.status == "finished" and r.best_score is not None]
    return ended, notes


def _compare(data: str, runs: list[RunRecord], notes: Sequence[str]) -> Comparison:
    _same_images(data, runs)
    kept, doubles = _without_doubles(runs)
    rows = _rows(data, kept)
    on = "test" if all(row.test_errors for row in rows) else "validation"
    said = [*notes, *doubles]
    if len(kept) == 1:
        said.append("One run alone: there is nothing to compare it with.")
    elif any(len(row.runs) == 1 for row in rows):
        said.append("Methods with n = 1 are not tested: one run says nothing of chance.")
    varied = _varied([row.runs[0].hyperparameters for row in rows])
    return Comparison(
        data=data,
        rows=tuple(rows),
        pairs=tuple(_pairs(rows, on)),
        beside_paper=tuple(_beside_paper(rows)),
        on=on,
        varied={
            row.label: {key: row.runs[0].hyperparameters.get(key) for key in varied} for row in rows
        },
        notes=tuple(said),
    )


def _same_images(data: str, runs: Sequence[RunRecord]) -> None:
    for what, names in (("split_sizes", "splits"), ("checksums", "files")):
        first = runs[0]
        for run in runs:
            if getattr(run, what) != getattr(first, what):
                raise UserError(
                    f"{first.run_id} and {run.run_id} have different {names} of {data}, so their "
                    "errors cannot be compared; name runs of one kind"
                )


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


def _frozen(settings: dict[str, object]) -> str:
    return json.dumps(settings, sort_keys=True)


def _rows(data: str, runs: Sequence[RunRecord]) -> list[Row]:
    arms: dict[str, dict[str, list[RunRecord]]] = {}
    for run in runs:
        arms.setdefault(run.arm_name, {}).setdefault(_frozen(run.hyperparameters), []).append(run)
    rows = []
    for arm in sorted(
        arms, key=lambda arm: (ORDER.index(arm) if arm in ORDER else len(ORDER), arm)
    ):
        settings = [json.loads(frozen) for frozen in arms[arm]]
        varied = _varied(settings)
        for setting, some in zip(settings, arms[arm].values(), strict=True):
            apart = "".join(
                f", {key.rpartition('.')[2]}={short(setting.get(key))}" for key in varied
            )
            some = sorted(some, key=lambda run: run.seed)
            rows.append(Row(f"{arm}{apart}", tuple(some), paper_error(data, arm)))
    return rows


def _varied(settings: Sequence[dict[str, object]]) -> list[str]:
    """The settings that are not the same in all."""
    keys = sorted({key for setting in settings for key in setting})
    return [key for key in keys if len({json.dumps(s.get(key)) for s in settings}) > 1]


def short(value: object) -> str:
    """A setting's value in few digits.

    Example:
        >>> short(0.0019623393773776725), short("adam")
        ('0.001962', 'adam')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _pairs(rows: Sequence[Row], on: str) -> list[Pair]:
    # One run alone says nothing of chance, so there is nothing to test it by.
    samples = [
        (row.label, sample)
        for row in rows
        if (sample := row.test if on == "test" else row.validation) and len(row.runs) > 1
    ]
    return _tested([(*first, *second) for first, second in itertools.combinations(samples, 2)])


def _beside_paper(rows: Sequence[Row]) -> list[Pair]:
    return _tested(
        [
            ("paper", row.paper, row.label, row.test)
            for row in rows
            if row.paper and row.test and row.paper.n > 1 and row.test.n > 1
        ]
    )


def _tested(pairs: Sequence[tuple[str, Sample, str, Sample]]) -> list[Pair]:
    """Test each pair of labelled samples, and correct for their number."""
    tests: list[WelchTest | None] = [welch(theirs, ours) for _, ours, _, theirs in pairs]
    corrected = holm([None if test is None else test.p for test in tests])
    return [
        Pair(
            first,
            second,
            theirs.mean - ours.mean,
            None if test is None else test.standard_errors,
            None if test is None else test.p,
            p_holm,
        )
        for (first, ours, second, theirs), test, p_holm in zip(pairs, tests, corrected, strict=True)
    ]
