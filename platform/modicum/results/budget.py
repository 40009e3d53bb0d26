"""Budget as the x-axis: curves, and the budget that a target needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modicum.results.statistics import Summary, median_with_interval, summarise

# (budget, value) pairs of one seed, by rising budget.
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class CurvePoint:
    """One point of a curve over seeds.

    Attributes:
        budget: Budget spent.
        summary: The metric over the seeds that had spent at least some budget by then.
    """

    budget: float
    summary: Summary


def curve(by_seed: Mapping[int, Points], *, carry: bool = True) -> list[CurvePoint]:
    """A metric against budget, over seeds.

    Within a trial (`carry`), every seed contributes at each budget its value at the largest
    budget not beyond it: what it had reached by then. The curve spans only budgets that all
    seeds cover: nothing is extrapolated. Across trials (not `carry`), each budget has the seeds
    that were run with it.
    """
    if not carry:
        values: dict[float, list[float]] = {}
        for points in by_seed.values():
            for budget, value in points:
                values.setdefault(budget, []).append(value)
        return [CurvePoint(budget, summarise(values[budget])) for budget in sorted(values)]
    series = [sorted(points) for points in by_seed.values() if points]
    if not series:
        return []
    first = max(points[0][0] for points in series)
    last = min(points[-1][0] for points in series)
    budgets = sorted({b for points in series for b, _ in points if first <= b <= last})
    result = []
    for budget in budgets:
        reached = []
        for points in series:
            xs = [x for x, _ in points]
            reached.append(points[int(np.searchsorted(xs, budget, side="right")) - 1][1])
        result.append(CurvePoint(budget, summarise(reached)))
    return result


def complete_seeds(by_seed: Mapping[int, Points]) -> dict[int, Points]:
    """The seeds that were run with every budget; a failed trial must not count as a miss."""
    budgets = {budget for points in by_seed.values() for budget, _ in points}
    return {s: points for s, points in by_seed.items() if {b for b, _ in points} == budgets}


@dataclass(frozen=True)
class BudgetNeeded:
    """The budget that a target needs, censored where it was not reached.

    Attributes:
        target: The level.
        n: Number of seeds.
        reached: Number of seeds that reached it.
        median: Median over seeds; infinite when half of them or more did not reach it.
        low: Lower end of its 95% bootstrap interval over seeds.
        high: Upper end; infinite when it is beyond the largest budget tried.
        largest: Largest budget that was tried.
    """

    target: float
    n: int
    reached: int
    median: float
    low: float
    high: float
    largest: float

    def __str__(self) -> str:
        if self.n == 0:
            return "no seed was run with every budget"
        seeds = f"{self.reached} of {self.n} seeds"
        if self.reached == 0:
            return f"> {self.largest:g} ({seeds})"
        return " ".join(filter(None, [self._bound(self.median), self.interval, f"({seeds})"]))

    def _bound(self, value: float) -> str:
        return f"> {self.largest:g}" if math.isinf(value) else f"{value:g}"

    @property
    def interval(self) -> str:
        """The 95% interval as text; empty for one seed."""
        if self.n == 1:
            return ""
        return f"[{self._bound(self.low)}, {self._bound(self.high)}]"


def budget_to_target(by_seed: Mapping[int, Points], target: float, goal: str) -> BudgetNeeded:
    """The smallest budget tried at which each seed reached the target.

    No interpolation between budgets and no extrapolation past the largest.

    Args:
        by_seed: Points of every seed.
        target: The level to reach.
        goal: `max` reaches it from below, `min` from above.
    """
    sign = 1.0 if goal == "max" else -1.0
    needed = []
    for points in by_seed.values():
        hits = [budget for budget, value in sorted(points) if sign * value >= sign * target]
        needed.append(hits[0] if hits else math.inf)
    if not needed:
        return BudgetNeeded(target, 0, 0, math.inf, math.inf, math.inf, math.nan)
    median, low, high = median_with_interval(needed)
    return BudgetNeeded(
        target=target,
        n=len(needed),
        reached=sum(math.isfinite(value) for value in needed),
        median=median,
        low=low,
        high=high,
        largest=max(budget for points in by_seed.values() for budget, _ in points),
    )
