"""What a comparison consists of: its arms, and pairs of them that were tested."""

import math
from dataclasses import dataclass
from statistics import median
from typing import Literal

from bclightning.compare.metric import Metric
from bclightning.compare.statistics import Sample, summarize
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
    """

    first: str
    second: str
    difference: float
    standard_errors: float | None
    p: float | None
    p_holm: float | None


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
