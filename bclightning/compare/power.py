"""Whether two means are equivalent, and how many runs it takes to tell."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import nctdtr, stdtr, stdtrit

from bclightning.compare.statistics import Sample, standard_error

# The level of a test, and the chance at which it is planned to come out.
LEVEL = 0.05
POWER = 0.8

# Nobody plans more runs of an arm than this.
MAX_SEEDS = 1000


@dataclass(frozen=True)
class EquivalenceTest:
    """The difference of two means, and whether it is within a margin.

    Attributes:
        difference: The first mean less the second.
        low: Lower end of the 90 % interval of the difference.
        high: Its upper end.
        p: Of equivalence: the greater p of the two one-sided tests; ``None`` without a margin.
    """

    difference: float
    low: float
    high: float
    p: float | None

    @property
    def least_margin(self) -> float:
        """The smallest margin within which the means are equivalent at the level of 5 %."""
        return max(abs(self.low), abs(self.high))


def tost(first: Sample, second: Sample, margin: float | None = None) -> EquivalenceTest | None:
    """Two one-sided t-tests (TOST, Schuirmann 1987) with Welch's degrees of freedom.

    One tests that the difference is above -`margin`, the other that it is below `margin`; where
    both do, the means are equivalent within the margin. At a level of 5 % that is where the 90 %
    interval of the difference lies between -`margin` and `margin`. Like `welch` it assumes
    independent runs with values that are about normally distributed, and not that both sides spread
    alike.

    Args:
        first: One side.
        second: The other side.
        margin: The largest difference that does not matter, above 0, in the unit of the values;
            ``None`` for the interval alone.

    Returns:
        The test, or ``None`` where a side has fewer than two runs, neither spreads at all, or the
        spread is beyond what a float holds.

    Example:
        >>> from bclightning.compare.statistics import summarize
        >>> test = tost(summarize([1.0, 1.1, 1.2]), summarize([1.1, 1.2, 1.3]), margin=0.5)
        >>> round(test.difference, 4), round(test.low, 4), round(test.high, 4), round(test.p, 4)
        (-0.1, -0.2741, 0.0741, 0.004)
    """
    spread = standard_error(first, second)
    if spread is None:
        return None
    error, freedom = spread
    difference = first.mean - second.mean
    half = float(stdtrit(freedom, 1 - LEVEL)) * error
    p = None
    if margin is not None:
        above = float(stdtr(freedom, -(difference + margin) / error))
        below = float(stdtr(freedom, (difference - margin) / error))
        p = max(above, below)
    return EquivalenceTest(difference, difference - half, difference + half, p)


def seeds_to_settle(
    first: Sample, second: Sample, margin: float | None = None, tests: int = 1
) -> int | None:
    """The smallest number of runs a side at which a test is expected to come out.

    It is expected to where its power is at least 80 %, if the true means and standard deviations
    are those of the samples: an estimate from a few runs, good for an order of magnitude.

    Args:
        first: One side.
        second: The other side.
        margin: With a margin either Welch's test or the two one-sided tests may come out, without
            one Welch's test.
        tests: Number of tests that are corrected for: each is held to the level over this number.

    Returns:
        The number of runs of each side, ``None`` where it is above 1000 or there is no spread.

    Example:
        >>> from bclightning.compare.statistics import Sample
        >>> seeds_to_settle(Sample(3, 1.0, 0.2), Sample(3, 1.2, 0.2))
        17
        >>> seeds_to_settle(Sample(3, 1.0, 0.2), Sample(3, 1.0, 0.2), margin=0.2)
        18
    """
    if standard_error(first, second) is None:
        return None
    counts = np.arange(2, MAX_SEEDS + 1)
    power = difference_power(first, second, counts, LEVEL / tests)
    if margin is not None:
        equivalent = equivalence_power(first, second, margin, counts, LEVEL / tests)
        power = np.maximum(power, equivalent)
    enough = np.flatnonzero(power >= POWER)
    return int(counts[enough[0]]) if len(enough) else None


# What overflows is far beyond any bound.
@np.errstate(over="ignore", invalid="ignore")
def difference_power(
    first: Sample, second: Sample, counts: npt.NDArray[np.int_], level: float = LEVEL
) -> npt.NDArray[np.float64]:
    """The power of Welch's test, two-sided, by the noncentral t distribution.

    Args:
        first: Mean and standard deviation of one side, taken for the true ones.
        second: Those of the other side.
        counts: Numbers of runs of each side.
        level: Level of the test.

    Returns:
        The probability for each number of runs that the test finds a difference.

    Example:
        >>> from bclightning.compare.statistics import Sample
        >>> difference_power(Sample(1, 0.0, 1.0), Sample(1, 1.0, 1.0), np.array([17])).round(4)
        array([0.807])
    """
    error, freedom = _planned(first, second, counts)
    bound = stdtrit(freedom, 1 - level / 2)
    place = (first.mean - second.mean) / error
    return _share(1 - nctdtr(freedom, place, bound) + nctdtr(freedom, place, -bound))


# What overflows is far beyond any bound.
@np.errstate(over="ignore", invalid="ignore")
def equivalence_power(
    first: Sample,
    second: Sample,
    margin: float,
    counts: npt.NDArray[np.int_],
    level: float = LEVEL,
) -> npt.NDArray[np.float64]:
    """The power of the two one-sided tests, by the noncentral t distribution.

    It is the difference of the two tests' distributions (Phillips 1990), which is exact but where
    the power is far below what a plan asks for.

    Args:
        first: Mean and standard deviation of one side, taken for the true ones.
        second: Those of the other side.
        margin: The largest difference that does not matter.
        counts: Numbers of runs of each side.
        level: Level of each of the two tests.

    Returns:
        The probability for each number of runs that both tests come out.

    Example:
        >>> from bclightning.compare.statistics import Sample
        >>> side = Sample(1, 0.0, 1.0)
        >>> equivalence_power(side, side, 1.0, np.array([18])).round(4)
        array([0.8045])
    """
    error, freedom = _planned(first, second, counts)
    bound = stdtrit(freedom, 1 - level)
    difference = first.mean - second.mean
    below = nctdtr(freedom, (difference - margin) / error, -bound)
    above = nctdtr(freedom, (difference + margin) / error, bound)
    return _share(below - above)


def _planned(
    first: Sample, second: Sample, counts: npt.NDArray[np.int_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The standard error of the difference and its degrees of freedom, by number of runs."""
    one, other = first.std or 0.0, second.std or 0.0
    total = math.hypot(one, other)
    shares = (one / total) ** 2, (other / total) ** 2
    return total / np.sqrt(counts), (counts - 1) / (shares[0] ** 2 + shares[1] ** 2)


def _share(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.clip(np.nan_to_num(values), 0.0, 1.0)
