"""Configurations of a search over several objectives that no other configuration dominates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modicum.errors import InputError
from modicum.results.layout import Objective
from modicum.results.ranking import summaries_of, trials_by_cell
from modicum.results.records import Key, StudyRecords, Where
from modicum.results.statistics import Summary


@dataclass(frozen=True)
class ParetoPoint:
    """A configuration of a search, with its means over seeds.

    Attributes:
        settings: The settings that make the configuration, as far as they have an effect.
        values: n, mean, sd and interval of each objective over seeds, by metric.
        optimal: True if no other configuration is at least as good by all objectives and better by
            one.
    """

    settings: Mapping[str, Any]
    values: Mapping[str, Summary]
    optimal: bool


def pareto_points(
    records: StudyRecords,
    names: Sequence[str],
    objectives: Sequence[Objective],
    where: Where = None,
) -> list[ParetoPoint]:
    """Configurations whose seeds have all finished, in the order of the study.

    Args:
        records: The study.
        names: Settings that make a configuration.
        objectives: The objectives, each with a goal.
        where: Settings of the trials to take.

    Raises:
        InputError: An objective has no goal, or is not declared.
    """
    for objective in objectives:
        if objective.goal is None:
            raise InputError(f"goal: say whether {objective.metric!r} is to be large or small")
    found = [summaries_of(records, objective.metric, names, where) for objective in objectives]
    signs = [-1.0 if objective.goal == "max" else 1.0 for objective in objectives]
    whole: dict[Key, list[Summary]] = {}
    for key, trials in trials_by_cell(records, names, where).items():
        values = [cells[key] for cells in found if key in cells]
        if len(values) == len(objectives) and all(v.n == len(trials) for v in values):
            whole[key] = values
    costs = {
        key: tuple(sign * value.mean for sign, value in zip(signs, values, strict=True))
        for key, values in whole.items()
    }
    return [
        ParetoPoint(
            settings={n: v for n, v in zip(names, key, strict=True) if v is not None},
            values={o.metric: value for o, value in zip(objectives, values, strict=True)},
            optimal=not any(_dominates(other, costs[key]) for other in costs.values()),
        )
        for key, values in whole.items()
    ]


def _dominates(first: Sequence[float], second: Sequence[float]) -> bool:
    """Tell whether costs are nowhere larger than others, and somewhere smaller."""
    return first != second and all(a <= b for a, b in zip(first, second, strict=True))
