"""Coverage of every interval that reports print, and errors of verdicts and of corrected tests.

Samples are drawn whose true value is known. Printed are the share of intervals that cover it, next
to what the interval says, and for comparison the coverage of percentile bootstraps.

Run: python tests/benchmarks/intervals.py [--samples 20000]
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from modicum.results.forecast import forecast
from modicum.results.reference import Reference, judge
from modicum.results.statistics import (
    holm,
    median_of,
    paired_difference,
    summarise,
    welch_difference,
)

Generator = np.random.Generator
# Lower end, upper end, true value, and the coverage that the interval states.
Sample = tuple[float | None, float | None, float, float | None]
RESAMPLES = 1000


@dataclass(frozen=True)
class Coverage:
    """Share of intervals that cover the true value, and the share that they state.

    Samples without an interval are left out.
    """

    name: str
    found: float
    stated: float


def mean_of_seeds(n: int, draw: Generator) -> Sample:
    found = summarise(draw.normal(3, 2, n).tolist())
    return found.low, found.high, 3.0, 0.95


def pairs_of_seeds(n: int, draw: Generator) -> Sample:
    """Differences with a standard deviation of 1, between values that share a part of 5."""
    shared = draw.normal(0, 5, n)
    first, second = shared + draw.normal(0.5, 0.6, n), shared + draw.normal(0, 0.8, n)
    found = paired_difference(first.tolist(), second.tolist())
    return found.low, found.high, 0.5, 0.95


def welch(sizes: tuple[int, int], spreads: tuple[float, float], draw: Generator) -> Sample:
    samples = [draw.normal(0, sd, n) for n, sd in zip(sizes, spreads, strict=True)]
    found = welch_difference(*(summarise(sample.tolist()) for sample in samples))
    return found.low, found.high, 0.0, 0.95


def median_of_seeds(n: int, draw: Generator) -> Sample:
    """Budgets that seeds need, log-normal, of median 1."""
    found = median_of(np.exp(draw.normal(0, 1, n)).tolist())
    return found.low, found.high, 1.0, found.coverage


def bootstrapped_median(n: int, draw: Generator) -> Sample:
    values = np.exp(draw.normal(0, 1, n))
    medians = np.sort(values[draw.integers(n, size=(RESAMPLES, n))], axis=1)[:, n // 2]
    return *np.quantile(medians, [0.025, 0.975]), 1.0, 0.95


@dataclass(frozen=True)
class Classifiers:
    """Right or wrong answers of classifiers, by a probit of seed, test row and the rest.

    Attributes:
        seeds: Number of seeds.
        rows: Number of test rows.
        seed_spread: Standard deviation among seeds, in units of the rest's.
        row_spread: Standard deviation among test rows, which all classifiers share.
    """

    seeds: int
    rows: int
    seed_spread: float
    row_spread: float

    def outcomes(self, levels: tuple[float, ...], draw: Generator) -> list[np.ndarray]:
        """Outcomes (seeds by test rows) of a classifier at each level, on the same test rows."""
        hard = draw.normal(0, self.row_spread, self.rows)
        found = []
        for level in levels:
            luck = draw.normal(0, self.seed_spread, (self.seeds, 1))
            score = level + luck + hard + draw.normal(0, 1, (self.seeds, self.rows))
            found.append((score > 0).astype(float))
        return found

    def accuracy(self, level: float) -> float:
        """True accuracy at a level, over all seeds and test rows."""
        spread = math.sqrt(1 + self.seed_spread**2 + self.row_spread**2)
        return float(stats.norm.cdf(level / spread))


def accuracy(world: Classifiers, with_rows: bool, draw: Generator) -> Sample:
    (outcomes,) = world.outcomes((2.5,), draw)
    found = summarise(outcomes.mean(1).tolist(), outcomes if with_rows else None)
    return found.low, found.high, world.accuracy(2.5), 0.95


def difference_of_accuracies(world: Classifiers, with_rows: bool, draw: Generator) -> Sample:
    levels = (2.5, 2.2)
    one, two = world.outcomes(levels, draw)
    means = one.mean(1).tolist(), two.mean(1).tolist()
    found = paired_difference(*means, one - two if with_rows else None)
    true = world.accuracy(levels[0]) - world.accuracy(levels[1])
    return found.low, found.high, true, 0.95


def bootstrapped_accuracy(world: Classifiers, draw: Generator) -> Sample:
    """Percentile bootstrap that draws seeds and test rows with replacement."""
    (outcomes,) = world.outcomes((2.5,), draw)
    seeds = draw.multinomial(world.seeds, [1 / world.seeds] * world.seeds, RESAMPLES)
    rows = draw.multinomial(world.rows, [1 / world.rows] * world.rows, RESAMPLES)
    means = ((seeds @ outcomes) * rows).sum(1) / (world.seeds * world.rows)
    return *np.quantile(means, [0.025, 0.975]), world.accuracy(2.5), 0.95


def coverage(name: str, sample: Callable[[Generator], Sample], samples: int) -> Coverage:
    draw = np.random.default_rng(0)
    drawn = [sample(draw) for _ in range(samples)]
    low, high, true, stated = np.array([each for each in drawn if each[0] is not None]).T
    return Coverage(name, float(((low <= true) & (true <= high)).mean()), float(stated.mean()))


def printed_intervals(samples: int) -> Iterator[Coverage]:
    """Every kind of interval that reports, tables, figures and comparisons print."""
    for n in (3, 5, 10):
        yield coverage(f"mean, {n} seeds", lambda d, n=n: mean_of_seeds(n, d), samples)
        yield coverage(f"paired, {n} seeds", lambda d, n=n: pairs_of_seeds(n, d), samples)
    for sizes, spreads in (((3, 3), (1, 1)), ((5, 5), (1, 3)), ((3, 5), (1, 3)), ((5, 3), (1, 3))):
        name = f"Welch, {sizes[0]} and {sizes[1]} seeds, spreads {spreads[0]} and {spreads[1]}"
        yield coverage(name, lambda d, s=sizes, w=spreads: welch(s, w, d), samples)
    for n in (3, 4, 5, 6, 10):
        yield coverage(f"median, {n} seeds", lambda d, n=n: median_of_seeds(n, d), samples)
    for n in (3, 5, 10):
        for spread in (0.05, 0.2):
            world = Classifiers(n, 500, spread, 1.0)
            name = f"{n} seeds (spread {spread}), 500 test rows"
            yield coverage(f"accuracy, {name}", lambda d, w=world: accuracy(w, True, d), samples)
            yield coverage(
                f"difference of accuracies, {name}",
                lambda d, w=world: difference_of_accuracies(w, True, d),
                samples,
            )


def for_comparison(samples: int) -> Iterator[Coverage]:
    """Intervals that are not printed, and printed ones where seeds are far from normal."""
    for n in (2, 3, 5):
        yield coverage(
            f"bootstrap of a median, {n} seeds", lambda d, n=n: bootstrapped_median(n, d), samples
        )
    for n in (3, 5):
        world = Classifiers(n, 500, 0.2, 1.0)
        name = f"accuracy, {n} seeds (spread 0.2), 500 test rows"
        yield coverage(
            f"t over seeds alone, {name}", lambda d, w=world: accuracy(w, False, d), samples
        )
        yield coverage(
            f"bootstrap of seeds and rows, {name}",
            lambda d, w=world: bootstrapped_accuracy(w, d),
            samples // 10,
        )
        skewed = Classifiers(n, 500, 0.5, 1.0)
        name = f"accuracy, {n} seeds (spread 0.5, skewed), 500 test rows"
        yield coverage(name, lambda d, w=skewed: accuracy(w, True, d), samples)


def verdicts(
    difference: float, margin: float | None, samples: int, ours: int = 5, published: int = 5
) -> dict[str, float]:
    """Share of each verdict.

    Args:
        difference: True difference, in standard deviations of a seed.
        margin: Margin of the reference, in the same unit; None for one published deviation.
        samples: Number of judged cells.
        ours: Number of our seeds.
        published: Number of published seeds.
    """
    draw = np.random.default_rng(0)
    found: Counter[str] = Counter()
    for _ in range(samples):
        theirs = draw.normal(0, 1, published)
        cell = {"where": {}, "mean": theirs.mean(), "sd": theirs.std(ddof=1), "n": published}
        reference = Reference(source="simulated", metric="m", margin=margin, cells=[cell])
        mine = summarise(draw.normal(difference, 1, ours).tolist())
        found[judge(reference, {"m": [({}, mine)]})[0].verdict] += 1
    return {verdict: count / samples for verdict, count in found.items()}


def calibration(samples: int) -> list[tuple[float, float]]:
    """Mean probability of the direction that is said, and share in which it is true.

    True differences to the baseline are normal, of five standard deviations of a seed, ours and
    the published ones apart: a wide prior, close to the flat one that the probability assumes.
    One pair for each of the bands 0.5 to 0.8, 0.8 to 0.95 and 0.95 to 1.
    """
    draw = np.random.default_rng(0)
    said = []
    for _ in range(samples):
        true = draw.normal(0, 5, 2)
        theirs = [draw.normal(level, 1, 5) for level in (0, true[1])]
        cells = [
            {"where": {"k": k}, "mean": each.mean(), "sd": each.std(ddof=1), "n": 5}
            for k, each in enumerate(theirs)
        ]
        reference = Reference(source="s", metric="m", baseline={"k": 0}, cells=cells)
        ours = [
            ({"k": k}, summarise(draw.normal(level, 1, 5).tolist()))
            for k, level in enumerate((0, true[0]))
        ]
        cell = judge(reference, {"m": ours})[1]
        said.append((cell.probability, cell.direction == bool(true[0] * true[1] > 0)))
    probability, right = np.array(said, dtype=float).T
    bands = [(0.5, 0.8), (0.8, 0.95), (0.95, 1.01)]
    inside = [(low <= probability) & (probability < high) for low, high in bands]
    return [(float(probability[b].mean()), float(right[b].mean())) for b in inside]


def false_claims(rows: int, samples: int) -> tuple[float, float]:
    """Share of tables of true zeros with one or more p below 0.05: uncorrected, and by Holm."""
    draw = np.random.default_rng(0)
    plain = corrected = 0
    for _ in range(samples):
        baseline = draw.normal(0, 1, 5).tolist()
        found = [paired_difference(draw.normal(0, 1, 5).tolist(), baseline).p for _ in range(rows)]
        plain += min(found) < 0.05
        corrected += min(holm(found)) < 0.05
    return plain / samples, corrected / samples


# Learning curves, and the budget at which they reach the target; budgets tried go up to 320.
LEARNING: dict[str, tuple[Callable[[float], float], float]] = {
    "power law": (lambda b: 0.95 - 0.6 * b**-0.5, 900),
    "logarithm": (lambda b: 0.5 + 0.06 * math.log(b), 900),
    "exponential": (lambda b: 0.9 - 0.5 * math.exp(-b / 150), 450),
    "exponential, on its plateau": (lambda b: 0.95 - 0.4 * math.exp(-b / 200), 900),
}


def forecasts(name: str, seeds: int, noise: float, samples: int) -> tuple[float, float]:
    """Share of samples with a forecast, and with a forecast whose interval misses."""
    curve, needed = LEARNING[name]
    budgets = [10, 20, 40, 80, 160, 320]
    draw = np.random.default_rng(0)
    made = missed = 0
    for _ in range(samples):
        levels = draw.normal(0, 0.005, seeds)
        points = {
            k: [(b, curve(b) + levels[k] + draw.normal(0, noise)) for b in budgets]
            for k in range(seeds)
        }
        found = forecast(points, curve(needed), "max")
        made += found.budget is not None
        missed += found.budget is not None and not found.low <= needed <= found.high
    return made / samples, missed / samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=20_000)
    samples = parser.parse_args().samples
    for title, intervals in (("printed", printed_intervals), ("for comparison", for_comparison)):
        print(f"{title}: covers, states")
        for found in intervals(samples):
            print(f"  {found.name}: {100 * found.found:.1f}%, {100 * found.stated:.1f}%")
    print("verdicts, by true difference and margin in standard deviations of a seed")
    for ours, published in ((5, 5), (3, 5), (10, 10)):
        for margin in (1.0, 2.0, None):
            for difference in (0.0, margin or 1.0, 2 * (margin or 1.0)):
                shares = verdicts(difference, margin, samples // 4, ours, published)
                text = ", ".join(
                    f"{100 * shares.get(v, 0):.1f}% {v}"
                    for v in ("matches", "differs", "undecided")
                )
                stated = "as published" if margin is None else f"{margin:g}"
                print(f"  {ours} and {published} seeds, {difference:g} and {stated}: {text}")
    print("direction: mean probability said, share that is right")
    for said, right in calibration(samples):
        print(f"  {said:.3f}, {right:.3f}")
    plain, corrected = false_claims(20, samples // 20)
    print("tables of 20 true zeros with a claim, by p and by Holm's p:")
    print(f"  {100 * plain:.1f}%, {100 * corrected:.1f}%")
    print("forecasts: made, made and missed (the interval)")
    for name in LEARNING:
        for seeds, noise in ((3, 0.002), (5, 0.002), (5, 0.01)):
            made, missed = forecasts(name, seeds, noise, samples // 100)
            print(f"  {name}, {seeds} seeds, noise {noise}: {100 * made:.0f}%, {100 * missed:.0f}%")


if __name__ == "__main__":
    main()
