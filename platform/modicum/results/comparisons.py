"""Paired comparisons of two methods over the same seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modicum.errors import InputError
from modicum.results.cells import values_by_seed
from modicum.results.records import StudyRecords, Where
from modicum.results.statistics import Difference, paired_difference


@dataclass(frozen=True)
class Comparison:
    """A cell of two methods, compared over the seeds that both have.

    Attributes:
        where: Settings of the cell.
        first: Settings of the first method.
        second: Settings of the second method.
        difference: First minus second, paired by seed.
    """

    where: Mapping[str, Any]
    first: Mapping[str, Any]
    second: Mapping[str, Any]
    difference: Difference


def compare_methods(
    records: StudyRecords,
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    metric: str,
    where: Where = None,
) -> list[Comparison]:
    """Compare two methods, given by the same settings, in every cell that both have."""
    if set(first) != set(second):
        raise InputError("compare: both sides must name the same settings")
    others = [n for n in records.varied if n not in first and n not in (where or {})]
    sides = [
        values_by_seed(records, metric, others, {**(where or {}), **side})
        for side in (first, second)
    ]
    compared = []
    for key in records.keys(others):
        one, two = (side.get(key, {}) for side in sides)
        seeds = sorted(one.keys() & two.keys())
        if not seeds:
            continue
        difference = paired_difference([one[s] for s in seeds], [two[s] for s in seeds])
        settings = {**(where or {}), **dict(zip(others, key, strict=True))}
        compared.append(Comparison(settings, first, second, difference))
    return compared
