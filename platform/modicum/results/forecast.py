"""Forecast of the budget that a target needs: a figure to plan by, beyond what was tried."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from modicum.results.curves import Points, complete_seeds, points_by_row
from modicum.results.formatting import show_settings
from modicum.results.layout import ReportLayout
from modicum.results.records import Key, StudyRecords, Where
from modicum.results.statistics import FEWEST, LEVEL

_RESAMPLES = 400
_FEWEST_BUDGETS = 5
# Largest multiple of the largest budget tried that is forecast.
_FARTHEST = 10.0
# Share of the resamples that have to reach the target.
_REACHING = 0.99


@dataclass(frozen=True)
class Forecast:
    """Budget at which an extrapolated learning curve reaches a target.

    Attributes:
        target: Level of the metric.
        n: Number of seeds.
        largest: Largest budget tried.
        budget: Budget at which the fitted curve reaches the target; None if refused.
        low: Lower end of its 95% interval over seeds; None where `budget` is. It takes the best
            fitting curve to be the true one.
        high: Upper end.
        curve: Curve that fits best: `power law`, `exponential` or `logarithm`.
        refused: Reason why the data cannot say; empty if they can.
    """

    target: float
    n: int
    largest: float
    budget: float | None = None
    low: float | None = None
    high: float | None = None
    curve: str = ""
    refused: str = ""

    def __str__(self) -> str:
        if self.budget is None:
            return f"no forecast: {self.refused}"
        return (
            f"about {self.budget:.3g} [{self.low:.3g} to {self.high:.3g}], "
            f"{self.budget - self.largest:.3g} more than tried ({self.curve}, {self.n} seeds)"
        )


@dataclass(frozen=True)
class _Shape:
    """A curve level + gain · rise(budget), whose rise grows with the budget."""

    curve: str
    parameters: int
    shape: float

    def rise(self, budgets: np.ndarray) -> np.ndarray:
        found: np.ndarray
        if self.curve == "power law":
            found = -(budgets**-self.shape)
        elif self.curve == "exponential":
            found = -np.exp(-budgets / self.shape)
        else:
            found = np.log(budgets)
        return found

    def budget(self, rise: np.ndarray) -> np.ndarray:
        """Budgets of values of `rise`; infinite beyond its limit."""
        left = np.maximum(-rise, 0.0)
        with np.errstate(divide="ignore", over="ignore"):
            if self.curve == "power law":
                found: np.ndarray = left ** (-1 / self.shape)
            elif self.curve == "exponential":
                found = -self.shape * np.log(left)
            else:
                found = np.exp(rise)
        return found


def _shapes(largest: float) -> Iterator[_Shape]:
    yield _Shape("logarithm", 3, 1.0)
    for power in np.geomspace(0.05, 3, 240):
        yield _Shape("power law", 4, float(power))
    for scale in np.geomspace(largest / 30, 2 * largest, 240):
        yield _Shape("exponential", 4, float(scale))


def forecast(by_seed: Mapping[int, Points], target: float, goal: str) -> Forecast:
    """Forecast the budget at which a learning curve reaches a target.

    A power law, an exponential and a logarithm are fitted to the mean over seeds by least squares,
    which is the largest likelihood under normal errors; the curve with the smallest corrected
    Akaike criterion (Hurvich and Tsai 1989) counts. Seeds are drawn with replacement, each draw is
    fitted and its curve chosen anew, and the spread of the logarithms of the budgets gives the
    interval, by Student's t of n − 1 degrees of freedom.

    Args:
        by_seed: Budget and value of each seed's points.
        target: Level of the metric.
        goal: `max` or `min`.
    """
    points = {seed: dict(found) for seed, found in complete_seeds(by_seed).items()}
    budgets = np.array(sorted({b for found in points.values() for b in found if b > 0}))
    largest = float(budgets[-1]) if len(budgets) else math.nan
    sign = 1.0 if goal == "max" else -1.0
    refusal = _refusal(len(points), len(budgets))
    if not refusal:
        values = sign * np.array([[found[b] for b in budgets] for found in points.values()])
        if values.mean(0).max() >= sign * target:
            refusal = "the mean over seeds reaches the target within the budgets tried"
    if refusal:
        return Forecast(target, len(points), largest, refused=refusal)
    n = len(values)
    draws = np.random.default_rng(0).multinomial(n, [1 / n] * n, _RESAMPLES)
    weights = np.vstack([np.ones(n), draws]) / n
    reached, curves = _reaching(budgets, values, weights, sign * target)
    budget, drawn = float(reached[0]), reached[1:]
    finite = np.isfinite(drawn)
    if not math.isfinite(budget) or finite.mean() < _REACHING:
        refusal = "the curve may level off below the target"
    elif budget > _FARTHEST * largest:
        refusal = f"the target is beyond {_FARTHEST:g} times the largest budget tried"
    if refusal:
        return Forecast(target, n, largest, refused=refusal)
    spread = float(np.log(drawn[finite]).std()) * math.sqrt(n / (n - 1))
    factor = math.exp(float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * spread)
    return Forecast(
        target, n, largest, budget, max(largest, budget / factor), budget * factor, curves[0]
    )


def _refusal(seeds: int, budgets: int) -> str:
    if seeds < FEWEST:
        return f"it needs {FEWEST} seeds with every budget, and has {seeds}"
    if budgets < _FEWEST_BUDGETS:
        return f"it needs {_FEWEST_BUDGETS} budgets, and has {budgets}"
    return ""


def _reaching(
    budgets: np.ndarray, values: np.ndarray, weights: np.ndarray, target: float
) -> tuple[np.ndarray, list[str]]:
    """Budgets at which the best curve of each weighting of the seeds reaches a target.

    Args:
        budgets: Budgets tried.
        values: Values to be large (seeds by budgets).
        weights: Weights of the seeds (weightings by seeds), which add up to 1.
        target: Level.

    Returns:
        Budget of each weighting, infinite where its curve never reaches the target, and the names
        of the curves.
    """
    n, count = values.shape
    centred = values - values.mean(1, keepdims=True)
    means = weights @ values
    # What no curve explains: the seeds' own courses around the mean's.
    course = weights @ centred
    rest = n * ((weights @ centred**2).sum(1) - (course**2).sum(1))
    size = n * count
    best = np.full(len(weights), np.inf)
    reached = np.full(len(weights), np.inf)
    curves = np.full(len(weights), "", dtype=object)
    for shape in _shapes(float(budgets[-1])):
        rise = shape.rise(budgets)
        rise_0 = rise - rise.mean()
        gain = means @ rise_0 / (rise_0 @ rise_0)
        residuals = means - means.mean(1, keepdims=True) - np.outer(gain, rise_0)
        k = shape.parameters
        errors = np.maximum(n * (residuals**2).sum(1) + rest, 1e-300)
        score = size * np.log(errors / size) + 2 * k * size / (size - k - 1)
        better = score < best
        best = np.where(better, score, best)
        with np.errstate(divide="ignore", invalid="ignore"):
            needed = shape.budget(rise.mean() + (target - means.mean(1)) / gain)
        reached = np.where(better, np.where(gain > 0, needed, np.inf), reached)
        curves[better] = shape.curve
    return reached, curves.tolist()


def forecasts_by_row(
    records: StudyRecords, metric: str, target: float, rows: Sequence[str], where: Where = None
) -> dict[Key, Forecast]:
    """Forecast the budget that each row needs to reach a level of a metric with a goal."""
    goal = records.goal(metric, "a forecast")
    found = points_by_row(records, metric, rows, where)
    return {key: forecast(points, target, goal) for key, points, _ in found}


def describe_forecasts(layout: ReportLayout, metric: str, target: float) -> str:
    """Write the forecasts of a report's rows as text, by group."""
    records = layout.records
    lines = [
        f"Forecast of {records.budget_words} for {metric} = {target:g}; 95% intervals over seeds, "
        "if the best fitting curve is the true one"
    ]
    for group in layout.groups():
        for where in layout.curve_groups(group):
            for key, found in forecasts_by_row(records, metric, target, layout.rows, where).items():
                settings = {**where, **dict(zip(layout.rows, key, strict=True))}
                lines.append(f"  {show_settings(settings) or 'all'}: {found}")
    return "\n".join(lines)
