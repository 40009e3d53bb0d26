"""The few statistics that every comparison here rests on, by SciPy.

An interval needs three seeds or more, and values that vary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

LEVEL = 0.95
# Number of seeds below which nothing is said about other seeds.
FEWEST = 3
# Differences of this size, relative to the values, are rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Estimate:
    """An estimate whose error follows Student's t.

    Attributes:
        value: The estimate.
        error: Standard error of the estimate, above 0.
        freedom: Degrees of freedom.
    """

    value: float
    error: float
    freedom: float

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Interval that covers the estimated value with the probability `level`."""
        half = _quantile((1 + level) / 2, self.freedom) * self.error
        return self.value - half, self.value + half

    @property
    def p(self) -> float:
        """p-value of the two-sided test that the estimated value is 0."""
        return float(2 * stats.t.sf(abs(self.value) / self.error, self.freedom))

    @property
    def positive(self) -> float:
        """Probability that the estimated value is above 0, under a flat prior."""
        return float(stats.t.cdf(self.value / self.error, self.freedom))

    def within(self, margin: float) -> bool:
        """Test if the estimated value lies within ± `margin`, by two one-sided tests (TOST).

        Each is at the level 1 − `LEVEL` (Schuirmann 1987): the interval of level 2 `LEVEL` − 1
        has to lie within the margin.
        """
        low, high = self.interval(2 * LEVEL - 1)
        return -margin < low and high < margin


@dataclass(frozen=True)
class Summary:
    """A sample of one number per seed.

    Attributes:
        n: Number of values.
        mean: Mean of the values.
        sd: Standard deviation with n − 1 in the denominator; None for n = 1.
        low: Lower end of the 95% t interval of the mean; None for n < 3 and without any spread.
        high: Upper end; None where `low` is.
        rows: Number of test rows that the interval takes for a sample, as it takes the seeds; None
            if it covers the seeds alone.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None
    rows: int | None = None


@lru_cache(maxsize=1000)
def _quantile(level: float, freedom: float) -> float:
    """Quantile of Student's t; a study asks for the same one thousands of times."""
    return float(stats.t.ppf(level, freedom))


def summarise(values: Sequence[float], outcomes: np.ndarray | None = None) -> Summary:
    """Mean, standard deviation and 95% interval of a sample (at least one value).

    Args:
        values: Values of N seeds.
        outcomes: Outcome of each of R test rows under each seed, whose means are the values.
            With them, the interval covers other test rows as well as other seeds.
    """
    sample = np.asarray(values, dtype=float)
    found = mean_estimate(sample, outcomes)
    low, high = (None, None) if found is None else found.interval()
    rows = None if found is None or outcomes is None else outcomes.shape[1]
    return Summary(len(sample), float(sample.mean()), _sd(sample), low, high, rows)


def mean_estimate(sample: np.ndarray, outcomes: np.ndarray | None = None) -> Estimate | None:
    """Estimate the mean over seeds, or over seeds and test rows if outcomes are given.

    Seeds and test rows are crossed random effects: the variance of the grand mean is
    σ²_seed/N + σ²_row/R + σ²_rest/(N R). Its components are estimated by mean squares. Its degrees
    of freedom are the harmonic mean of the components', weighted by their shares: fewer than
    Satterthwaite's (1946), with which three seeds cover 92%. A bootstrap of seeds and rows
    (Owen 2007, "The pigeonhole bootstrap") counts σ²_rest three times, and its percentiles know
    no more than the few seeds at hand.

    Returns:
        None for fewer than three seeds, and where nothing varies.
    """
    n, sd = len(sample), _sd(sample)
    if n < FEWEST or sd is None:
        return None
    seeds, rows, freedom = sd**2 / n, 0.0, float(n - 1)
    if outcomes is not None and outcomes.shape[1] > 1:
        count = outcomes.shape[1]
        by_row = outcomes.mean(0)
        residuals = outcomes - outcomes.mean(1, keepdims=True) - by_row + by_row.mean()
        rest = float((residuals**2).sum()) / ((n - 1) * (count - 1))
        # The seeds' part holds σ²_rest/(N R) already.
        rows = max(0.0, float(by_row.var(ddof=1)) / count - rest / (n * count))
        if seeds + rows > 0:
            freedom = (seeds + rows) / (seeds / (n - 1) + rows / (count - 1))
    variance = seeds + rows
    return Estimate(float(sample.mean()), math.sqrt(variance), freedom) if variance else None


def _sd(sample: np.ndarray) -> float | None:
    """Standard deviation; 0 where the values differ by rounding alone, None for a single value."""
    if len(sample) == 1:
        return None
    alike = np.ptp(sample) <= _ROUNDING * np.abs(sample).max()
    return 0.0 if alike else float(sample.std(ddof=1))


@dataclass(frozen=True)
class Difference:
    """A comparison of two samples: the first minus the second.

    Attributes:
        n: Number of pairs; of unpaired samples, the size of the smaller one.
        mean: Mean difference.
        low: Lower end of its 95% t interval; None for n < 3 and without any spread.
        high: Upper end; None where `low` is.
        p: p-value of the t test that belongs to the interval; None where `low` is.
        rows: Number of test rows that the interval takes for a sample; None if it covers the
            seeds alone.
    """

    n: int
    mean: float
    low: float | None
    high: float | None
    p: float | None
    rows: int | None = None


def paired_difference(
    first: Sequence[float], second: Sequence[float], outcomes: np.ndarray | None = None
) -> Difference:
    """Compare two samples whose values belong together one by one (paired t test).

    Args:
        first: Values of N seeds.
        second: Values of the same seeds.
        outcomes: Difference of the outcomes of each test row under each seed; with it, the
            comparison is paired by test rows as well, and covers them.
    """
    ours, theirs = (np.asarray(values, dtype=float) for values in (first, second))
    difference = ours - theirs
    difference[np.abs(difference) <= _ROUNDING * np.maximum(np.abs(ours), np.abs(theirs))] = 0
    estimate = mean_estimate(difference, outcomes)
    rows = None if outcomes is None else outcomes.shape[1]
    return _difference(len(difference), float(difference.mean()), estimate, rows)


def welch_difference(first: Summary, second: Summary) -> Difference:
    """Compare two samples that are not paired (Welch's t test)."""
    estimate = welch_estimate(first, second)
    return _difference(min(first.n, second.n), first.mean - second.mean, estimate)


def _difference(
    n: int, mean: float, estimate: Estimate | None, rows: int | None = None
) -> Difference:
    if estimate is None:
        return Difference(n, mean, None, None, None)
    return Difference(n, mean, *estimate.interval(), estimate.p, rows)


def welch_estimate(first: Summary, second: Summary) -> Estimate | None:
    """Estimate the difference of two means with unequal variances (Welch 1947).

    Returns:
        None if a sample has fewer than three values, and where neither varies.
    """
    if min(first.n, second.n) < FEWEST or first.sd is None or second.sd is None:
        return None
    parts = [(summary.sd or 0.0) ** 2 / summary.n for summary in (first, second)]
    if not sum(parts):
        return None
    degrees = (first.n - 1, second.n - 1)
    freedom = sum(parts) ** 2 / sum(part**2 / d for part, d in zip(parts, degrees, strict=True))
    return Estimate(first.mean - second.mean, math.sqrt(sum(parts)), freedom)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct the p-values of a table for their number (Holm 1979).

    Where the corrected value is below 0.05, the row may be claimed: with any number of rows and
    any dependence among them, the probability of one or more false claims is below 0.05. Rows
    without a p-value are no tests, and stay without.
    """
    tested = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        corrected[index] = largest
    return corrected


@dataclass(frozen=True)
class Median:
    """A median with an interval between two values of the sample.

    Attributes:
        value: The median; of two middle values, the larger.
        low: Lower end of the interval; None for n < 3 and without any spread.
        high: Upper end; None where `low` is.
        coverage: Probability that such an interval covers the true median, of any distribution
            (at least that, if values can be equal); None where `low` is.
    """

    value: float
    low: float | None = None
    high: float | None = None
    coverage: float | None = None


def median_of(values: Sequence[float]) -> Median:
    """Median of a sample, with the narrowest interval of order statistics that covers 95%.

    From the k-th smallest value to the k-th largest, the interval covers with the probability
    1 − 2 P(B < k), B binomial of n and 1/2 (David and Nagaraja 2003, section 7.1). Below six
    values none reaches 95%: the whole range covers 75% with three values, 87.5% with four and
    93.75% with five.

    Infinite values stand for "not reached": median and ends are values of the sample, never an
    average with infinity.
    """
    sample, n = sorted(map(float, values)), len(values)
    middle = sample[n // 2]
    if n < FEWEST:
        return Median(middle)
    k = max(1, int(stats.binom.ppf((1 - LEVEL) / 2, n, 0.5)))
    low, high = sample[k - 1], sample[n - k]
    if low == high:
        return Median(middle)
    return Median(middle, low, high, float(1 - 2 * stats.binom.cdf(k - 1, n, 0.5)))
