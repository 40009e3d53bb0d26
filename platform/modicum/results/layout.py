"""Arrangement of a study's report: which settings make rows, columns and groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modicum.errors import InputError, validated
from modicum.experiment.setting_filters import find_baseline
from modicum.planning.space import drawn_settings
from modicum.planning.spec import ReportSpec, SchedulerSpec, SearchSpec
from modicum.results.records import Key, StudyRecords


@dataclass(frozen=True)
class Objective:
    """Order of configurations by a metric: `max` or `min` of it first; None for no order."""

    metric: str
    goal: str | None


@dataclass(frozen=True)
class ReportLayout:
    """Arrangement of a study's report.

    Attributes:
        records: The study.
        spec: The study file's section `report`.
        rows: Settings that make the rows of a table: the things compared.
        columns: Settings that make the columns.
        by: Settings that get a table and pictures for each value.
        metrics: Metrics that are shown, the main one first.
        search: The study's searcher, else its scheduler; None without either.
        ranked: True if each row is a configuration of a search, and the best stands first.
    """

    records: StudyRecords
    spec: ReportSpec
    rows: list[str]
    columns: list[str]
    by: list[str]
    metrics: list[str]
    search: SearchSpec | SchedulerSpec | None = None
    ranked: bool = False

    @property
    def main_metric(self) -> str:
        """The first metric.

        Raises:
            InputError: There is none.
        """
        if not self.metrics:
            raise InputError("metric: name one; the experiment declares none with a goal")
        return self.metrics[0]

    def objective(self, metric: str | None = None, goal: str | None = None) -> Objective:
        """Objective of the study, as far as it is not given.

        The metric is by default the first of `search`, else the main metric. The goal is by default
        the one that `search` has for the metric, else the declared one.

        Raises:
            InputError: There is no metric, or the experiment does not declare it.
        """
        metric = metric or (self.main_metric if self.search is None else self.search.metrics[0])
        if goal is None and self.search is not None:
            goals = dict(zip(self.search.metrics, self.search.goals, strict=True))
            goal = goals.get(metric)
        return Objective(metric, goal or self.records.metric_info(metric)["goal"])

    @property
    def objectives(self) -> list[Objective]:
        """All objectives of the study."""
        metrics = [None] if self.search is None else self.search.metrics
        return [self.objective(metric) for metric in metrics]

    @property
    def order(self) -> Objective | None:
        """Objective that orders the rows; None if they stand in the order of the study."""
        return self.objective() if self.ranked else None

    def groups(self) -> list[dict[str, Any]]:
        """Values of the `by` settings; each combination gets tables and pictures."""
        return self.records.combinations(self.by) if self.by else [{}]

    def column_groups(self, where: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Values of the column settings, each added to the settings of a group."""
        return [{**where, **values} for values in self.records.combinations(self.columns)]

    def curve_groups(self, where: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Settings for which a picture of curves against budget is drawn, within a group.

        Where the columns set the budget (label fractions), trials join across them into one
        curve. Every other column setting gets a picture for each of its values.
        """
        free = self.records.experiment["budget_settings"]
        apart = [name for name in self.columns if name not in free]
        found = self.records.combinations(apart) if apart else [{}]
        return [{**where, **values} for values in found]

    def baseline_rows(self) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
        """Each baseline's row, with all other rows.

        Raises:
            InputError: A baseline names no row, or more than one.
        """
        rows = self.records.combinations(self.rows)
        found = [find_baseline(rows, baseline) for baseline in self.spec.baseline]
        return [(rows[index], rows[:index] + rows[index + 1 :]) for index in found]


def report_layout(records: StudyRecords) -> ReportLayout:
    """Arrange a report as its study says; the varied settings that it does not name go to `by`.

    A setting whose value follows from the named ones is left out. If the study names none, the
    row is `method` if it varies (else the first varied setting) and the column the last varied
    setting. Metrics are by default all that have a goal and values.

    A search is a study with a searcher, a scheduler or a random domain that varies. Unless it
    names rows, columns or a baseline, all varied settings make its rows, the best first, and its
    metrics include the objective.

    Raises:
        InputError: The study file is broken.
    """
    spec = validated(ReportSpec, records.spec.get("report", {}), "study.yaml: report")
    search = _search(records.spec)
    ranked = (
        spec.rows is None
        and spec.columns is None
        and not spec.baseline
        and (search is not None or not set(_drawn(records.spec)).isdisjoint(records.varied))
    )
    if ranked:
        every = [name for name in records.varied if name not in (spec.by or [])]
        spec = spec.model_copy(update={"rows": every, "columns": []})
    named = [*(spec.rows or []), *(spec.columns or []), *(spec.by or [])]
    free = [name for name in records.varied if name not in named]
    rows = spec.rows
    if rows is None:
        pick = "method" if "method" in free else next(iter(free), None)
        rows = [pick] if pick else []
        free = [name for name in free if name not in rows]
    columns = spec.columns
    if columns is None:
        columns, free = free[-1:], free[:-1]
    by = list(spec.by or [])
    for name in free:
        if not _follows(records, name, [*rows, *columns, *by]):
            by.append(name)
    metrics = spec.metrics
    if metrics is None:
        goals = {name: metric["goal"] for name, metric in records.experiment["metrics"].items()}
        metrics = [name for name in map(str, records.frame) if goals.get(name)]
        if ranked and search is not None:
            metrics = [*search.metrics, *metrics]
    elif ranked and search is not None:
        metrics = [*metrics, *search.metrics]
    metrics = list(dict.fromkeys(metrics))
    return ReportLayout(records, spec, rows, columns, by, metrics, search, ranked)


def _search(study: Mapping[str, Any]) -> SearchSpec | SchedulerSpec | None:
    """Searcher of a study file, else its scheduler."""
    if study.get("search") is not None:
        return validated(SearchSpec, study["search"], "study.yaml: search")
    if study.get("scheduler") is not None:
        return validated(SchedulerSpec, study["scheduler"], "study.yaml: scheduler")
    return None


def _drawn(study: Mapping[str, Any]) -> Iterator[str]:
    """Settings with a random domain in a study file."""
    spaces = study.get("space", {})
    for space in spaces if isinstance(spaces, list) else [spaces]:
        if isinstance(space, Mapping):
            yield from drawn_settings(space)


def _follows(records: StudyRecords, name: str, others: Sequence[str]) -> bool:
    """Test if trials that agree in the other settings agree in this one."""
    values: dict[Key, set[str]] = {}
    for trial in records.trials:
        key = tuple(trial.columns.get(other) for other in others)
        values.setdefault(key, set()).add(repr(trial.columns.get(name)))
    return all(len(found) == 1 for found in values.values())
