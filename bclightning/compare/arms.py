"""What a comparison consists of: its arms, and pairs of them that were tested."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

from bclightning.compare.equivalence import Equivalence, Side, equivalences
from bclightning.compare.metric import Metric
from bclightning.compare.statistics import Sample, summarize
from bclightning.errors import UserError, nearest
from bclightning.runs.record import RunRecord
from bclightning.vocabulary import RE_ESTIMATED


def run_result(run: RunRecord, weights: str = "", batch_norm: str | None = None) -> float | None:
    """The test result of a run, ``None`` where there is none or it is NaN or infinite.

    Args:
        run: The record.
        weights: Evaluation weights; those that stand for the run if empty.
        batch_norm: Batch-norm statistics; those that stand for the run if ``None``.
    """
    value = run.tested_with(weights, batch_norm) if weights else run.test_value
    return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class Arm:
    """Runs whose settings differ by their seed alone.

    Attributes:
        label: Name of the arm, and where it was run in several settings, what tells them apart.
        runs: The records, by seed.
        paper: The paper's test error, where it gives one.
    """

    label: str
    runs: tuple[RunRecord, ...]
    paper: Sample | None

    @property
    def name(self) -> str:
        """Name of the arm, which several settings share."""
        return self.runs[0].arm_name

    @property
    def is_binary(self) -> bool:
        """Whether its networks have binary weights."""
        return self.runs[0].binary_weights > 0

    @property
    def best_score(self) -> Sample:
        """The monitored metric at the best epochs."""
        return summarize([run.best_score for run in self.runs if run.best_score is not None])

    @property
    def test_values(self) -> list[float]:
        """Test results under the evaluation that stands for the runs, of the runs tested."""
        return [value for run in self.runs if (value := run_result(run)) is not None]

    @property
    def test(self) -> Sample | None:
        """The test result under the evaluation that stands for the runs."""
        return summarize(self.test_values) if self.test_values else None

    @property
    def one_bit(self) -> Sample | None:
        """The test result with binary weights and the batch-norm statistics of `evaluation`."""
        return self.test_with("binary")

    def test_with(self, weights: str, batch_norm: str | None = None) -> Sample | None:
        """The test result with some evaluation weights, of the runs where it was measured.

        Args:
            weights: ``binary``, ``real`` or ``ensemble``.
            batch_norm: ``as trained`` or ``re-estimated``; those of `evaluation` if ``None``.
        """
        values = [run_result(run, weights, batch_norm) for run in self.runs]
        found = [value for value in values if value is not None]
        return summarize(found) if found else None

    @property
    def evaluation(self) -> str:
        """The evaluation weights, and the batch-norm statistics where they are re-estimated."""
        evaluation = self.runs[0].evaluation
        statistics = ", BN re-estimated" if evaluation.get("batch_norm") == RE_ESTIMATED else ""
        return f"{evaluation.get('weights', '-')}{statistics}"

    @property
    def best_epoch(self) -> Sample | None:
        """The best epoch, counted from 1; ``None`` where no record tells it."""
        known = [run.best_epoch + 1 for run in self.runs if run.best_epoch is not None]
        return summarize(known) if known else None

    @property
    def seconds(self) -> float:
        """Time in training and validation: the median, which one halted run does not change."""
        return median(run.train_seconds for run in self.runs)


@dataclass(frozen=True)
class Pair:
    """Two arms, or the paper's figure and an arm, tested for a difference.

    Attributes:
        first: Label of one arm, or ``paper``.
        second: Label of the other arm.
        difference: Mean of the second less that of the first, for errors in percentage points.
        standard_errors: The same in standard errors of that difference; ``None`` as `p`.
        p: By Welch's t-test; ``None`` where it cannot be made.
        p_holm: Corrected for the number of pairs.
        seeds: Runs of each arm at which a difference like this one is expected to show, corrected
            for the number of pairs; ``None`` where it shows, or more than 1000 were needed.
    """

    first: str
    second: str
    difference: float
    standard_errors: float | None
    p: float | None
    p_holm: float | None
    seeds: int | None = None


@dataclass(frozen=True)
class Comparison:
    """The runs on one data set whose best epochs one metric chose.

    Attributes:
        data: Name of the data set.
        monitor: The metric that chose each run's best epoch, and its direction.
        test_metric: The metric that the test set was judged by.
        arms: The arms, each setting of an arm by itself.
        pairs: Each two of those with more than one run.
        beside_paper: The paper's figure and an arm, for each arm where both have a spread.
        tested_on: Whether `pairs` are of ``test`` results, or of ``validation`` where some arm has
            no test result.
        varied: Hyperparameters that differ between arms, by label of the arm and name.
        notes: What was left out, in sentences.
        settings: Hyperparameters that a sweep searched, or else those that differ between arms.
        margin: The largest difference of test results that does not matter; ``None`` if none was
            given.
    """

    data: str
    monitor: Metric
    test_metric: Metric
    arms: tuple[Arm, ...]
    pairs: tuple[Pair, ...]
    beside_paper: tuple[Pair, ...]
    tested_on: Literal["test", "validation"]
    varied: dict[str, dict[str, object]]
    notes: tuple[str, ...]
    settings: tuple[str, ...] = ()
    margin: float | None = None

    @property
    def runs(self) -> list[RunRecord]:
        """All runs, arm by arm."""
        return [run for arm in self.arms for run in arm.runs]

    @property
    def title(self) -> str:
        """The data set, and what was monitored where that is not the validation error."""
        return self.data if self.monitor.is_error else f"{self.data}, {self.monitor.heading}"

    @property
    def tested_metric(self) -> Metric:
        """The metric that `pairs` are differences of."""
        return self.test_metric if self.tested_on == "test" else self.monitor

    @property
    def one_bit(self) -> list[Equivalence]:
        """Each arm of binary weights, as a model of one bit a weight, beside each of real weights.

        Of test results, or of validation results where `tested_on` says so and they are of binary
        weights.
        """
        real = [side for arm in self.arms if not arm.is_binary and (side := self._side(arm))]
        binary = [side for arm in self.arms if arm.is_binary and (side := self._side(arm, True))]
        return equivalences(list(itertools.product(real, binary)), self.margin)

    def equivalence(
        self, margin: float, pairs: Sequence[tuple[str, str]] | None = None
    ) -> list[Equivalence]:
        """Test arms for equivalence: is the difference of their means within a margin?

        By two one-sided t-tests (TOST, Schuirmann 1987) with Welch's degrees of freedom, at 5 % and
        corrected for the number of pairs by Holm's method. They assume independent runs with
        results that are about normally distributed, and not that arms spread alike.

        Args:
            margin: The largest difference that does not matter, above 0: for errors in percentage
                points. It is to be chosen before the results are seen.
            pairs: Labels of arms, whose results are those of the table. If ``None``, each arm of
                real weights and the one-bit model of each arm of binary weights, or where arms are
                all of one kind, each two arms.

        Raises:
            UserError: The margin is not a number above 0, or there is no arm of a label.

        Example:
            >>> from bclightning.compare.comparison import compare
            >>> def run(arm, seed, error):
            ...     weights = {"weights": "real", "batch_norm": "as trained"}
            ...     return RunRecord(f"{arm}{seed}", "e", arm, "digits", seed, status="finished",
            ...                      best_score=error, evaluation=weights,
            ...                      test=[{**weights, "value": error}])
            >>> records = [run(arm, seed, 2 + seed / 10 + shift) for seed in range(5)
            ...            for arm, shift in (("none", 0.0), ("dropout", 0.1))]
            >>> (found,) = compare(records)[0].equivalence(margin=0.5)
            >>> found.first, found.second, round(found.p, 4), found.verdict
            ('none', 'dropout', 0.002, 'equivalent')
        """
        if pairs is not None:
            sides = [(self._labelled(first), self._labelled(second)) for first, second in pairs]
            return equivalences(sides, margin)
        one_bit = replace(self, margin=margin).one_bit
        if one_bit:
            return one_bit
        known = [side for arm in self.arms if (side := self._side(arm))]
        return equivalences(list(itertools.combinations(known, 2)), margin)

    def _labelled(self, label: str) -> Side:
        arms = {arm.label: arm for arm in self.arms}
        if label not in arms:
            raise UserError(
                f"there is no arm {label!r}{nearest(label, arms)}; there are {', '.join(arms)}"
            )
        side = self._side(arms[label])
        if side is None:
            raise UserError(f"the arm {label} has no test result; test its runs with bcl test")
        return side

    def _side(self, arm: Arm, one_bit: bool = False) -> Side | None:
        size = arm.runs[0].packed_bytes if arm.is_binary else arm.runs[0].float_bytes
        if self.tested_on == "test":
            sample = arm.one_bit if one_bit else arm.test
        else:
            other = one_bit and arm.runs[0].evaluation.get("weights") != "binary"
            sample = None if other else arm.best_score
        return None if sample is None else Side(arm.label, sample, size)
