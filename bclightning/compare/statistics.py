"""Means, intervals and tests for a handful of seeds."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from scipy.special import stdtr, stdtrit


@dataclass(frozen=True)
class Sample:
    """What is known of a figure from `n` runs.

    Attributes:
        n: Number of runs.
        mean: Their mean.
        std: Standard deviation with n - 1; ``None`` for one run.
        low: Lower end of the 95 % interval of the mean, by Student's t; ``None`` for one run.
        high: Its upper end.
    """

    n: int
    mean: float
    std: float | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """Mean ± standard deviation with two decimals, as of errors in percent."""
        return self.text("{:.2f}".format)

    def text(self, number: Callable[[float], str]) -> str:
        """Mean ± standard deviation; the mean alone for one run.

        Args:
            number: How a value is written.
        """
        return (
            number(self.mean) if self.std is None else f"{number(self.mean)} ± {number(self.std)}"
        )

    def interval_text(self, number: Callable[[float], str]) -> str:
        """The 95 % interval; a hyphen for one run.

        Args:
            number: How a value is written.
        """
        if self.low is None or self.high is None:
            return "-"
        return f"{number(self.low)} to {number(self.high)}"


def summarize(values: Sequence[float]) -> Sample:
    """Mean, standard deviation and 95 % interval.

    The interval assumes that runs are independent and about normally distributed.

    Raises:
        ValueError: There are no values.

    Example:
        >>> sample = summarize([1.0, 2.0, 3.0])
        >>> print(sample, "in", sample.interval_text("{:.2f}".format))
        2.00 ± 1.00 in -0.48 to 4.48
    """
    n = len(values)
    if n == 0:
        raise ValueError("nothing to summarize")
    if n == 1:
        return Sample(1, float(values[0]))
    mean = _mean(values)
    std = math.sqrt(_variance(values, mean))
    half = float(stdtrit(n - 1, 0.975)) * std / math.sqrt(n)
    return Sample(n, mean, std, mean - half, mean + half)


@dataclass(frozen=True)
class WelchTest:
    """Whether two means differ.

    Attributes:
        difference: The first mean less the second.
        standard_errors: The same in standard errors of that difference, Welch's t.
        p: Two-sided.
    """

    difference: float
    standard_errors: float
    p: float


def welch(first: Sample, second: Sample) -> WelchTest | None:
    """Welch's t-test: do the means of two arms differ?

    It assumes independent runs with errors that are about normally distributed, and not that both
    arms spread alike. With three to ten seeds a side it is the test of choice; tests by ranks
    cannot reach 0.05 with three, whatever the difference. Of a sample, such as the paper's, it
    needs no more than the mean, the standard deviation and the number of runs.

    Returns:
        The test, or ``None`` where a side has fewer than two runs, neither spreads at all, or the
        spread is beyond what a float holds.

    Example:
        >>> test = welch(summarize([1.0, 1.1, 1.2]), summarize([1.5, 1.7, 1.6]))
        >>> round(test.difference, 4), round(test.standard_errors, 4), round(test.p, 4)
        (-0.5, -6.1237, 0.0036)
    """
    spread = standard_error(first, second)
    if spread is None:
        return None
    error, freedom = spread
    difference = first.mean - second.mean
    t = difference / error
    return WelchTest(difference, t, min(1.0, 2.0 * float(stdtr(freedom, -abs(t)))))


def standard_error(first: Sample, second: Sample) -> tuple[float, float] | None:
    """The standard error of a difference of means, and Welch and Satterthwaite's freedom.

    Args:
        first: One side.
        second: The other side.

    Returns:
        Standard error and degrees of freedom, or ``None`` where a side has fewer than two runs,
        neither spreads at all, or the spread is beyond what a float holds.

    Example:
        >>> standard_error(Sample(4, 1.0, 0.5), Sample(4, 1.5, 0.0))
        (0.25, 3.0)
    """
    if first.std is None or second.std is None:
        return None
    squares = [side.std * side.std / side.n for side in (first, second) if side.std is not None]
    total = _total(squares)
    if total == 0.0 or not math.isfinite(total):
        return None
    # In shares of the total nothing overflows.
    shares = [square / total for square in squares]
    freedom = 1.0 / (shares[0] ** 2 / (first.n - 1) + shares[1] ** 2 / (second.n - 1))
    return math.sqrt(total), freedom


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction for the number of tests: valid whatever their dependence.

    Args:
        p_values: A p-value for each test, ``None`` for a test that could not be made.

    Example:
        >>> holm([0.01, None, 0.04, 0.03])
        [0.03, None, 0.06, 0.06]
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for place, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - place)))
        corrected[index] = largest
    return corrected


def _mean(values: Sequence[float]) -> float:
    total = _total(values)
    if math.isfinite(total):
        return total / len(values)
    # Of the largest floats the sum is infinite, and the mean is not.
    mean = _total(value / len(values) for value in values)
    return min(max(values), max(min(values), mean))


def _total(values: Iterable[float]) -> float:
    try:
        return math.fsum(values)
    except OverflowError:
        return math.inf


def _variance(values: Sequence[float], mean: float) -> float:
    if min(values) == max(values):
        # A mean's rounding must not look like spread.
        return 0.0
    # By a product, which becomes infinite where a power would raise an error.
    return _total((value - mean) * (value - mean) for value in values) / (len(values) - 1)
