"""Checks of a study's fields against its experiment and each other, before anything starts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from modicum.errors import InputError
from modicum.experiment.config import settings_of
from modicum.experiment.experiment import Experiment
from modicum.experiment.metric import Metric
from modicum.experiment.setting_filters import require_settings
from modicum.planning.space import Grid, domains_of
from modicum.planning.spec import StudySpec

Spaces = Sequence[Mapping[str, Any]]


def check_fields(experiment: Experiment[Any], spec: StudySpec, spaces: Spaces) -> None:
    """Check that names exist, that a search is possible, and that the report can be made.

    Raises:
        InputError: A field is wrong; names the field and the allowed values.
    """
    known = settings_of(experiment.Config)
    for space in spaces:
        require_settings(space, known, "space")
    for entry in spec.exclude:
        require_settings(entry, known, "exclude")
    _check_search(experiment, spec, spaces)
    _check_report(experiment, spec)


def _check_search(experiment: Experiment[Any], spec: StudySpec, spaces: Spaces) -> None:
    drawn = {name for space in spaces for name in domains_of(space)}
    if spec.draws > 1 and not drawn:
        raise InputError("draws: more than one draw needs a random domain in the space")
    if spec.seed != 0 and not drawn:
        warnings.warn(
            f"seed: {spec.seed} has no effect, since nothing is drawn; `seeds` gives the number of "
            "seeds of each configuration",
            stacklevel=5,
        )
    if spec.search is not None:
        goal_of(experiment, spec.search.metric, spec.search.goal, "search.metric")
        if len(spaces) > 1:
            raise InputError("search: a searcher needs a single space, not a list")
        for name, value in spaces[0].items():
            if isinstance(value, Grid):
                raise InputError(f"space.{name}: a searcher cannot walk a grid; use choice instead")
        if not drawn:
            raise InputError("search: the space has no domain to search in")
    if spec.scheduler is not None:
        goal_of(experiment, spec.scheduler.metric, spec.scheduler.goal, "scheduler.metric")
        if len(spec.seed_list) > 1:
            raise InputError(
                "scheduler: early stopping would keep some seeds of a cell and drop others; "
                "give one seed, or leave the scheduler out"
            )


def _check_report(experiment: Experiment[Any], spec: StudySpec) -> None:
    report = spec.report
    known = settings_of(experiment.Config)
    for role in ("rows", "columns", "by"):
        names = getattr(report, role) or []
        require_settings(names, known, f"report.{role}", also=["seed"])
    for name in [name for baseline in report.baseline for name in baseline]:
        require_settings([name], known, "report.baseline", also=["seed"])
        if report.rows is not None and name not in report.rows:
            raise InputError(
                f"report.baseline: {name!r} is not among the rows ({', '.join(report.rows)})"
            )
    for metric in report.metrics or []:
        _declaration(experiment, metric, "report.metrics")
    for target in report.targets:
        _declaration(experiment, target.metric, "report.targets")
    for picture in report.pictures:
        for metric in (picture.against, *picture.metrics):
            _declaration(experiment, metric, "report.pictures")


def goal_of(experiment: Experiment[Any], metric: str, goal: str | None, field: str) -> str:
    """Direction of a metric, `max` or `min`: the study's goal, else the declared one.

    Raises:
        InputError: No such metric is declared, or neither goal is given.
    """
    declared = _declaration(experiment, metric, field).goal
    if goal is None and declared is None:
        raise InputError(f"{field}: say whether {metric!r} is to be large or small (goal)")
    return goal or declared or "max"


def _declaration(experiment: Experiment[Any], metric: str, field: str) -> Metric:
    if "*" in metric:
        raise InputError(f"{field}: name one metric, not the pattern {metric!r}")
    try:
        return experiment.metric(metric)
    except InputError as error:
        raise InputError(f"{field}: {error}") from None
