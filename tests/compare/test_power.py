"""Equivalence and planned numbers of runs, against SciPy, a published example and simulation."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bclightning.compare.power import (
    MAX_SEEDS,
    difference_power,
    equivalence_power,
    seeds_to_settle,
    tost,
)
from bclightning.compare.statistics import Sample, summarize

errors = st.floats(0, 100).map(lambda value: round(value, 2))
samples = st.lists(errors, min_size=2, max_size=8)
margins = st.floats(0.01, 20)
deviations = st.floats(0.05, 3)


@given(samples, samples, margins)
def test_equivalence_is_two_of_scipys_one_sided_tests(first, second, margin):
    assume(min(np.std(first), np.std(second)) > 1e-6)
    test = tost(summarize(first), summarize(second), margin)
    shifted = np.asarray(first)
    above = scipy.stats.ttest_ind(shifted + margin, second, equal_var=False, alternative="greater")
    below = scipy.stats.ttest_ind(shifted - margin, second, equal_var=False, alternative="less")
    assert test.p == pytest.approx(max(above.pvalue, below.pvalue), abs=1e-9)
    interval = scipy.stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.9)
    assert test.low == pytest.approx(interval.low, rel=1e-6, abs=1e-6)
    assert test.high == pytest.approx(interval.high, rel=1e-6, abs=1e-6)
    # At 5 % the test comes out where the interval lies within the margin.
    if abs(test.least_margin - margin) > 1e-9:
        assert (test.p < 0.05) == (test.least_margin < margin)


def test_a_published_example_of_equivalence():
    """Lakens (2017) on Johnson et al. (2014): within d = 0.43, t = -2.69 and p = .004."""
    margin = 0.43 * ((0.95**2 + 0.83**2) / 2) ** 0.5
    test = tost(Sample(95, 5.25, 0.95), Sample(89, 5.22, 0.83), margin)
    assert round(test.p, 3) == 0.004
    assert scipy.stats.t.ppf(test.p, 181.6) == pytest.approx(-2.69, abs=0.005)


def test_there_is_no_test_without_spread_or_with_one_run():
    for sides in (([1.0], [2.0, 3.0]), ([1.0, 1.0], [2.0, 2.0])):
        one, other = map(summarize, sides)
        assert tost(one, other, 0.5) is None
        assert seeds_to_settle(one, other, 0.5) is None


@pytest.mark.parametrize(("effect", "n"), [(0.2, 394), (0.5, 64), (0.8, 26), (1.0, 17), (1.5, 9)])
def test_numbers_of_runs_are_those_of_cohens_tables(effect, n):
    """Cohen (1988), table 2.4.1: two-sided 5 %, power 0.80, equal spreads."""
    assert seeds_to_settle(Sample(3, 0.0, 1.0), Sample(3, effect, 1.0)) == n


def simulated(first, second, n, margin, level=0.05, repeats=20_000):
    """Shares of repeats in which Welch's test and the two one-sided tests come out."""
    random = np.random.default_rng(n)
    one = random.normal(first.mean, first.std, (repeats, n))
    other = random.normal(second.mean, second.std, (repeats, n))
    squares = one.var(axis=1, ddof=1) / n, other.var(axis=1, ddof=1) / n
    error = np.sqrt(squares[0] + squares[1])
    freedom = error**4 / ((squares[0] ** 2 + squares[1] ** 2) / (n - 1))
    difference = one.mean(axis=1) - other.mean(axis=1)
    differs = np.abs(difference) > scipy.stats.t.ppf(1 - level / 2, freedom) * error
    half = scipy.stats.t.ppf(1 - level, freedom) * error
    equivalent = np.abs(difference) + half < margin
    return differs.mean(), equivalent.mean()


@settings(max_examples=15)
@given(st.floats(0, 2), deviations, deviations, st.integers(3, 40), st.floats(0.3, 3))
def test_power_is_what_a_simulation_finds(difference, one, other, n, margin):
    first, second = Sample(3, 0.0, one), Sample(3, difference, other)
    differs, equivalent = simulated(first, second, n, margin)
    counts = np.array([n])
    assert difference_power(first, second, counts)[0] == pytest.approx(differs, abs=0.03)
    planned = equivalence_power(first, second, margin, counts)[0]
    # Where the power is small, which no plan asks for, it is an approximation from below.
    assert planned == pytest.approx(equivalent, abs=0.03 if equivalent > 0.5 else 0.1)


@settings(max_examples=15)
@given(st.floats(0, 1.5), deviations, deviations, st.floats(0.3, 3), st.integers(1, 6))
def test_the_planned_number_is_the_smallest_that_suffices(difference, one, other, margin, tests):
    first, second = Sample(3, 0.0, one), Sample(3, difference, other)
    n = seeds_to_settle(first, second, margin, tests)
    assume(n is not None and 4 <= n <= 60)
    # The degrees of freedom are estimated in a real test, which a few runs feel.
    found = max(simulated(first, second, n, margin, 0.05 / tests))
    assert found == pytest.approx(0.8, abs=0.09) or found > 0.8
    assert max(simulated(first, second, n - 1, margin, 0.05 / tests)) < 0.84


def test_what_no_number_of_runs_settles():
    same = Sample(3, 1.0, 0.5)
    assert seeds_to_settle(same, same) is None
    # At the margin itself a difference is neither within nor beyond it, but it is a difference.
    assert seeds_to_settle(same, Sample(3, 1.001, 0.5), margin=0.001) is None
    assert seeds_to_settle(same, same, margin=0.1) <= MAX_SEEDS
    # More tests ask for more runs.
    counts = [seeds_to_settle(same, Sample(3, 1.5, 0.5), None, tests) for tests in (1, 2, 6)]
    assert counts == sorted(set(counts))


@given(*[st.floats(1e-300, 1e300)] * 2, *[st.floats(-1e300, 1e300)] * 2, st.floats(1e-300, 1e300))
@settings(max_examples=60)
def test_values_of_any_size_are_planned_for(one, other, first, second, margin):
    sides = Sample(3, first, one), Sample(3, second, other)
    assert seeds_to_settle(*sides, margin) in (None, *range(2, MAX_SEEDS + 1))
    test = tost(*sides, margin)
    assert test is None or 0 <= test.p <= 1 or test.p != test.p
