import math

import numpy as np
import pytest
from scipy import stats

from modicum.results.statistics import (
    median_with_interval,
    paired_difference,
    summarise,
    welch_interval,
)


def test_summary_by_hand():
    """1, 2, 3: mean 2, sd 1, half-width t(0.975, 2)·1/√3 = 4.3027/1.7321 = 2.4841."""
    summary = summarise([1, 2, 3])
    assert (summary.n, summary.mean, summary.sd) == (3, 2.0, 1.0)
    assert summary.low == pytest.approx(2 - 2.4841, abs=1e-4)
    assert summary.high == pytest.approx(2 + 2.4841, abs=1e-4)


def test_one_value_has_no_interval():
    summary = summarise([5.0])
    assert (summary.mean, summary.sd, summary.low, summary.high) == (5.0, None, None, None)


def test_paired_difference_by_hand():
    """Differences 1, 2, 3: t = 2/(1/√3) = 3.4641 on 2 degrees of freedom, p = 0.0742."""
    d = paired_difference([2, 4, 6], [1, 2, 3])
    assert d.mean == 2
    assert d.p == pytest.approx(0.0742, abs=1e-4)
    assert d.low == pytest.approx(2 - 2.4841, abs=1e-4)


def test_paired_difference_without_spread():
    assert paired_difference([1, 2], [1, 2]).p == 1.0
    shifted = paired_difference([2, 3], [1, 2])
    assert (shifted.low, shifted.high, shifted.p) == (1.0, 1.0, None)
    assert paired_difference([1], [2]).p is None


def test_welch_interval_agrees_with_scipy():
    rng = np.random.default_rng(0)
    one, two = rng.normal(0, 1, 5), rng.normal(0.4, 3, 8)
    theirs = stats.ttest_ind(one, two, equal_var=False).confidence_interval(0.95)
    ours = welch_interval(one.mean(), one.std(ddof=1), 5, two.mean(), two.std(ddof=1), 8)
    assert ours == pytest.approx((theirs.low, theirs.high))


def test_welch_interval_with_one_constant_side():
    low, high = welch_interval(1.0, 0.0, 5, 0.0, 1.0, 5)
    half = stats.t.ppf(0.975, 4) / math.sqrt(5)
    assert (low, high) == pytest.approx((1 - half, 1 + half))
    assert welch_interval(1.0, 0.0, 5, 0.25, 0.0, 5) == (0.75, 0.75)


def test_median_is_censored_not_averaged():
    inf = math.inf
    assert median_with_interval([10, 10, 10, 10, 10]) == (10, 10, 10)
    median, low, high = median_with_interval([10, 20, 30, inf, inf])
    assert (median, low, high) == (30, 10, inf)
    # Of two middle values the larger: half of the seeds not reaching it is not reaching it.
    assert median_with_interval([10, 10, inf, inf])[0] == inf


def test_bootstrap_interval_of_the_median_covers_the_truth():
    """A 95% interval from 25 values covers the true median in about 95% of samples."""
    rng = np.random.default_rng(1)
    hits = 0
    for sample in range(200):
        _, low, high = median_with_interval(rng.normal(0, 1, 25).tolist(), seed=sample)
        hits += low <= 0 <= high
    assert 0.88 <= hits / 200 <= 0.99
