"""Statistics of a few seeds against SciPy's and against their definitions."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from bclightning.compare.statistics import holm, summarize, welch

errors = st.floats(0, 100).map(lambda value: round(value, 2))
samples = st.lists(errors, min_size=2, max_size=8)


@given(samples)
def test_mean_deviation_and_interval_are_scipys(values):
    sample = summarize(values)
    assert sample.n == len(values)
    assert sample.mean == pytest.approx(sum(values) / len(values))
    assert sample.std == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    if sample.std > 1e-6:
        low, high = scipy.stats.t.interval(
            0.95, len(values) - 1, sample.mean, scipy.stats.sem(values)
        )
        assert (sample.low, sample.high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.filterwarnings("ignore:Precision loss")  # SciPy's, where one side has no spread
@given(samples, samples)
def test_welch_is_scipys(first, second):
    assume(max(map(len, map(set, (first, second)))) > 1)
    expected = scipy.stats.ttest_ind(first, second, equal_var=False)
    test = welch(summarize(first), summarize(second))
    assert test.p == pytest.approx(expected.pvalue, abs=1e-9)
    assert test.standard_errors == pytest.approx(expected.statistic, rel=1e-6, abs=1e-6)
    assert test.difference == pytest.approx(np.mean(first) - np.mean(second), abs=1e-9)


def test_there_is_no_test_without_spread_or_with_one_run():
    assert welch(summarize([1.0]), summarize([2.0, 3.0])) is None
    assert welch(summarize([1.1, 1.1, 1.1]), summarize([2.2, 2.2])) is None
    # The mean of three times 0.1 is not 0.1 in binary.
    assert summarize([0.1, 0.1, 0.1]).std == 0.0


@given(*[st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=3)] * 2)
def test_floats_of_any_size_have_a_mean(first, second):
    """A loss that diverged may be as large as a float can be."""
    samples = [summarize(first), summarize(second)]
    for sample, values in zip(samples, (first, second), strict=True):
        assert min(values) <= sample.mean <= max(values) or sample.mean == pytest.approx(values[0])
        assert sample.std is None or sample.std >= 0
        assert sample.text("{:.2f}".format)
        assert sample.interval_text("{:.2f}".format)
    test = welch(*samples)
    assert test is None or 0 <= test.p <= 1


def test_one_run_has_no_spread_and_none_no_mean():
    assert str(summarize([1.234])) == "1.23"
    assert summarize([1.234]).interval_text(str) == "-"
    with pytest.raises(ValueError, match="nothing to summarize"):
        summarize([])


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=8))
def test_holms_correction_is_its_definition(p_values):
    corrected = holm(p_values)
    known = [p for p in p_values if p is not None]
    for p, adjusted in zip(p_values, corrected, strict=True):
        if p is None:
            assert adjusted is None
            continue
        # The largest, over all p up to this one, of p times the number of those not yet rejected.
        steps = [min(1.0, q * sum(r >= q for r in known)) for q in known if q <= p]
        assert math.isclose(adjusted, max(steps), abs_tol=1e-12)
