import math

import numpy as np
import pytest
from scipy import stats

from modicum.results.statistics import (
    holm,
    mean_estimate,
    median_of,
    paired_difference,
    summarise,
    welch_difference,
    welch_estimate,
)


def test_summary_by_hand():
    """1, 2, 3: mean 2, sd 1, half-width t(0.975, 2)·1/√3 = 4.3027/1.7321 = 2.4841."""
    summary = summarise([1, 2, 3])
    assert (summary.n, summary.mean, summary.sd) == (3, 2.0, 1.0)
    assert summary.low == pytest.approx(2 - 2.4841, abs=1e-4)
    assert summary.high == pytest.approx(2 + 2.4841, abs=1e-4)


@pytest.mark.parametrize(
    "values", [[5.0], [1.0, 2.0], [0.1 + 0.2, 0.3, 0.3]], ids=["one", "two", "alike"]
)
def test_too_few_values_and_values_that_are_alike_have_no_interval(values):
    """0.1 + 0.2 is not 0.3 in floating point; a mean of 0.3 has no error for that."""
    summary = summarise(values)
    assert (summary.low, summary.high) == (None, None)
    assert summary.sd == (None if len(values) == 1 else pytest.approx(np.std(values, ddof=1)))
    nothing = [0.0] * len(values)
    difference = paired_difference(values, nothing)
    assert (difference.low, difference.high, difference.p) == (None, None, None)
    assert median_of(values[:2]).coverage is None


def test_paired_difference_by_hand():
    """Differences 1, 2, 3: t = 2/(1/√3) = 3.4641 on 2 degrees of freedom, p = 0.0742."""
    d = paired_difference([2, 4, 6], [1, 2, 3])
    assert d.mean == 2
    assert d.p == pytest.approx(0.0742, abs=1e-4)
    assert d.low == pytest.approx(2 - 2.4841, abs=1e-4)


def test_differences_that_vary_by_rounding_alone_do_not_vary():
    """0.3 − 0.2 and 0.2 − 0.1 differ in the last bit."""
    shifted = paired_difference([0.3, 0.2, 0.9], [0.2, 0.1, 0.8])
    assert (shifted.low, shifted.p) == (None, None)
    equal = paired_difference([0.1 + 0.2, 0.7, 0.8], [0.3, 0.7, 0.8])
    assert (equal.mean, equal.low, equal.p) == (0.0, None, None)


def test_welch_agrees_with_scipy():
    rng = np.random.default_rng(0)
    one, two = rng.normal(0, 1, 5), rng.normal(0.4, 3, 8)
    theirs = stats.ttest_ind(one, two, equal_var=False)
    ours = welch_difference(summarise(one), summarise(two))
    ends = theirs.confidence_interval(0.95)
    assert (ours.low, ours.high, ours.p) == pytest.approx((ends.low, ends.high, theirs.pvalue))
    less = stats.ttest_ind(one, two, equal_var=False, alternative="less")
    assert welch_estimate(summarise(one), summarise(two)).positive == pytest.approx(less.pvalue)


def test_welch_with_one_constant_side():
    """The other side alone has an error: 1/√5 on 4 degrees of freedom."""
    varied = [-1.0, -1.0, 0.0, 1.0, 1.0]
    found = welch_difference(summarise([1.0] * 5), summarise(varied))
    half = stats.t.ppf(0.975, 4) / math.sqrt(5)
    assert (found.low, found.high) == pytest.approx((1 - half, 1 + half))
    constant = welch_difference(summarise([1.0] * 5), summarise([0.25] * 5))
    assert (constant.mean, constant.low, constant.p) == (0.75, None, None)
    assert welch_difference(summarise([1.0, 2.0]), summarise(varied)).low is None


def test_equivalence_is_two_one_sided_tests():
    """Both one-sided t tests against the margin must be below 5%, at SciPy's p-values."""
    rng = np.random.default_rng(2)
    decided = set()
    for _ in range(200):
        one, two = rng.normal(0, 1, 6), rng.normal(0, 1, 6)
        wanted = all(
            stats.ttest_ind(one + shift, two, equal_var=False, alternative=side).pvalue < 0.05
            for shift, side in ((1.2, "greater"), (-1.2, "less"))
        )
        assert welch_estimate(summarise(one), summarise(two)).within(1.2) == wanted
        decided.add(wanted)
    assert decided == {True, False}


def test_holm_by_hand():
    """Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04; raised to 0.06."""
    assert holm([0.04, None, 0.01, 0.03, 0.02]) == pytest.approx([0.06, None, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([None]) == [None]


def test_seeds_and_rows_by_hand():
    """Three seeds by two test rows, 1 1 / 1 0 / 1 0.

    Seeds' means 1, 1/2, 1/2 have variance 1/12: 1/36 of the mean's. Rows' means 1 and 1/3 have
    variance 2/9: 1/9. Squared residuals add up to 1/3 on 2 degrees of freedom: (1/6)/6 = 1/36 of
    the rows' part is the seeds' already, which leaves 1/12. In all 1/9: a quarter with 2 degrees
    of freedom and three quarters with 1, together 1/(1/8 + 3/4) = 8/7.
    """
    outcomes = np.array([[1, 1], [1, 0], [1, 0]], dtype=float)
    found = mean_estimate(outcomes.mean(1), outcomes)
    assert found.value == pytest.approx(2 / 3)
    assert found.error == pytest.approx(1 / 3)
    assert found.freedom == pytest.approx(8 / 7)
    summary = summarise(outcomes.mean(1), outcomes)
    assert (summary.rows, summary.sd) == (2, summarise(outcomes.mean(1)).sd)


def test_rows_of_their_own_for_each_seed_add_nothing_on_average():
    """Where each seed has test rows of its own, the seeds' spread holds the rows' already."""
    rng = np.random.default_rng(3)
    alone, both = [], []
    for _ in range(300):
        outcomes = (rng.random((4, 200)) < 0.9).astype(float)
        alone.append(mean_estimate(outcomes.mean(1)).error ** 2)
        both.append(mean_estimate(outcomes.mean(1), outcomes).error ** 2)
    true = 0.9 * 0.1 / 800
    assert np.mean(alone) == pytest.approx(true, rel=0.1)
    # Negative estimates count as 0, which adds a little.
    assert true * 0.9 < np.mean(both) < true * 1.15


def test_median_is_censored_not_averaged():
    inf = math.inf
    assert median_of([10, 20, 30, inf, inf]).value == 30
    # Of two middle values the larger: half of the seeds not reaching it is not reaching it.
    assert median_of([10, 10, inf, inf]).value == inf


@pytest.mark.parametrize(
    ("n", "low", "high", "coverage"),
    [
        (3, 1, 3, 3 / 4),
        (4, 1, 4, 7 / 8),
        (5, 1, 5, 15 / 16),
        (6, 1, 6, 31 / 32),
        (9, 2, 8, 246 / 256),
    ],
)
def test_median_intervals_by_counting(n, low, high, coverage):
    """The interval misses if fewer than `low` of n values, or as many, lie on one side.

    For 9 values: 1 − 2 (1 + 9)/512 = 492/512.
    """
    found = median_of(list(range(1, n + 1)))
    assert (found.low, found.high) == (low, high)
    assert found.coverage == pytest.approx(coverage)
