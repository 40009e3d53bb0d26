"""The few statistics that every comparison here rests on, by SciPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Summary:
    """A sample of one number per seed.

    Attributes:
        n: Number of values.
        mean: Mean of the values.
        sd: Standard deviation with n − 1 in the denominator; None for n = 1.
        low: Lower end of the 95% t interval of the mean; None for n = 1.
        high: Upper end; None for n = 1.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


def summarise(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and 95% interval of a sample (at least one value)."""
    sample = np.asarray(values, dtype=float)
    n, mean = len(sample), float(sample.mean())
    if n == 1:
        return Summary(1, mean, None, None, None)
    sd = float(sample.std(ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(n, mean, sd, mean - half, mean + half)


@dataclass(frozen=True)
class Difference:
    """A paired comparison: the first sample minus the second.

    Attributes:
        n: Number of pairs.
        mean: Mean difference.
        low: Lower end of its 95% t interval; None for one pair.
        high: Upper end; None for one pair.
        p: p-value of the paired t test; None where it is undefined (one pair, or all
            differences equal and not zero).
    """

    n: int
    mean: float
    low: float | None
    high: float | None
    p: float | None

    @property
    def excludes_zero(self) -> bool:
        """True if the interval is defined and leaves out zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def paired_difference(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Compare two samples whose values belong together one by one (paired t test)."""
    differences = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    summary = summarise(differences.tolist())
    if summary.sd is None:
        p = None
    elif summary.sd == 0:
        p = 1.0 if summary.mean == 0 else None
    else:
        p = float(stats.ttest_rel(first, second).pvalue)
    return Difference(summary.n, summary.mean, summary.low, summary.high, p)


def welch_interval(
    mean: float, sd: float, n: int, other_mean: float, other_sd: float, other_n: int
) -> tuple[float, float]:
    """95% interval of the difference of two means with unequal variances (Welch).

    With both standard deviations zero the interval is the difference itself.
    """
    difference = mean - other_mean
    if sd == 0 and other_sd == 0:
        return difference, difference
    first, second = sd**2 / n, other_sd**2 / other_n
    # Welch-Satterthwaite degrees of freedom.
    freedom = (first + second) ** 2 / (
        (first**2 / (n - 1) if n > 1 else 0.0) + (second**2 / (other_n - 1) if other_n > 1 else 0.0)
    )
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(first + second)
    return difference - half, difference + half


def median_with_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Median of a sample and its 95% percentile-bootstrap interval.

    Infinite values stand for "not reached": the median and the interval's ends are always
    values of the sample (of two middle ones, the larger), never an average with infinity.

    Returns:
        Median, lower end, upper end.
    """
    sample = np.sort(np.asarray(values, dtype=float))
    generator = np.random.default_rng(seed)
    drawn = np.sort(sample[generator.integers(len(sample), size=(_RESAMPLES, len(sample)))], axis=1)
    medians = np.sort(drawn[:, len(sample) // 2])
    tail = (1 - LEVEL) / 2
    low = medians[math.floor(tail * (_RESAMPLES - 1))]
    high = medians[math.ceil((1 - tail) * (_RESAMPLES - 1))]
    return float(sample[len(sample) // 2]), float(low), float(high)
