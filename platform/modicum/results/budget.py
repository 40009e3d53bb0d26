"""Budget that a target needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modicum.results.curves import Points, points_by_row
from modicum.results.records import Key, StudyRecords, Where
from modicum.results.statistics import median_with_interval


def complete_seeds(by_seed: Mapping[int, Points]) -> dict[int, Points]:
    """Seeds that were run with every budget; a failed trial must not count as a miss."""
    budgets = {budget for points in by_seed.values() for budget, _ in points}
    return {s: points for s, points in by_seed.items() if {b for b, _ in points} == budgets}


@dataclass(frozen=True)
class BudgetNeeded:
    """Budget that a target needs, censored where the target was not reached.

    Attributes:
        target: Level of the metric.
        n: Number of seeds.
        reached: Number of seeds that reached the target.
        median: Median over seeds; infinite if half of the seeds or more missed the target.
        low: Lower end of the median's 95% bootstrap interval over seeds.
        high: Upper end of that interval; infinite if it is beyond the largest budget tried.
        largest: Largest budget tried.
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
    """Find the smallest budget tried at which each seed reached a target.

    Budgets between those tried are not interpolated, and none beyond the largest extrapolated.

    Args:
        by_seed: Points of each seed.
        target: Level to reach.
        goal: `max` reaches the target from below, `min` from above.
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


def budgets_by_row(
    records: StudyRecords, metric: str, target: float, rows: Sequence[str], where: Where = None
) -> dict[Key, BudgetNeeded]:
    """Find the budget that each row needs to reach a level of a metric with a goal."""
    goal = records.goal(metric, "a budget to target")
    return {
        key: budget_to_target(complete_seeds(points) if joined else points, target, goal)
        for key, points, joined in points_by_row(records, metric, rows, where)
    }
