"""Searchers and schedulers of `ray.tune` for a study, from specifications or as objects."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from modicum.errors import InputError, unknown_name
from modicum.planning.spec import SchedulerSpec, SearchSpec
from modicum.planning.trial_plan import TrialPlan
from modicum.ray_support.private_api import (
    scheduler_objective,
    scheduler_time,
    tune_schedulers,
    tune_searchers,
)

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler
    from ray.tune.search import Searcher

# Schedulers that change the settings of running trials, whose identity would no longer hold.
_CHANGING = {"pbt", "pbt_replay", "pb2", "resource_changing"}
_ALIASES = {"asha": "async_hyperband"}
_SEVERAL_OBJECTIVES = {"optuna"}
# Searchers that only draw, as a study does without a searcher.
_DRAWING = {"random", "variant_generator"}


@dataclass(frozen=True)
class SearchPlan:
    """A search: the settings that a searcher chooses, and the trials of a choice.

    Attributes:
        goals: Direction of each objective, `max` or `min`, by metric.
        domains: The settings to choose, by flat dotted names.
        trials_of: Function from a choice to its trials, one for each seed. It raises `InputError`
            for a choice that is impossible or excluded.
        examples: Trials of one arbitrary choice, for counting the trials that fit.
        signature: Description of the search. A search continues an earlier one in the run folder
            if both have the same signature.
    """

    spec: SearchSpec
    searcher: Searcher
    goals: Mapping[str, str]
    domains: Mapping[str, Any]
    trials_of: Callable[[Mapping[str, Any]], Sequence[TrialPlan]]
    seeds: int
    examples: Sequence[TrialPlan]
    signature: str


def describe_searcher(
    search: Searcher | SearchSpec | Mapping[str, Any] | None, samples: int | None
) -> tuple[Searcher | None, SearchSpec | Mapping[str, Any] | None]:
    """A searcher object and its specification; a specification alone passes through.

    Raises:
        InputError: The object has no metric or mode, or `samples` is missing or superfluous.
    """
    if search is None or isinstance(search, SearchSpec | Mapping | str | list):
        if samples is not None:
            raise InputError("samples: goes with a searcher given as an object")
        return None, search
    if samples is None:
        raise InputError("samples: say how many suggestions the searcher is to make")
    if not search.metric or not search.mode:
        raise InputError("search: give the searcher its metric and mode")
    return search, {
        "name": type(search).__name__,
        "metric": search.metric,
        "goal": search.mode,
        "samples": samples,
    }


def describe_scheduler(
    scheduler: TrialScheduler | SchedulerSpec | Mapping[str, Any] | None,
) -> tuple[TrialScheduler | None, SchedulerSpec | Mapping[str, Any] | None]:
    """A scheduler object and its specification; a specification alone passes through.

    Raises:
        InputError: The object has no metric, or changes the settings of running trials.
    """
    if scheduler is None or isinstance(scheduler, SchedulerSpec | Mapping | str | list):
        return None, scheduler
    from ray.tune import schedulers

    changing = (schedulers.PopulationBasedTraining, schedulers.ResourceChangingScheduler)
    if isinstance(scheduler, changing):
        allowed = ", ".join(sorted({*_stopping_schedulers(), *_ALIASES}))
        raise InputError(
            "scheduler: it changes the settings of running trials, which then have no "
            f"identity (allowed: {allowed})"
        )
    metric, mode = scheduler_objective(scheduler)
    if not metric:
        raise InputError("scheduler: give the scheduler its metric and mode")
    return scheduler, {"name": type(scheduler).__name__, "metric": metric, "goal": mode}


def as_ray_takes(values: Iterable[str]) -> Any:
    """A searcher's metrics or modes: the only one, or a list of several."""
    listed = list(values)
    return listed if len(listed) > 1 else listed[0]


def make_searcher(spec: SearchSpec, goals: Mapping[str, str], seed: int) -> Searcher:
    """The searcher that a study names, with a seed unless its options have one.

    Raises:
        InputError: There is no such searcher, it is not installed, it refuses its options, or it
            takes one objective only.
    """
    importers = {name: f for name, f in tune_searchers().items() if name not in _DRAWING}
    if spec.name not in importers:
        raise InputError(f"search.name: {unknown_name('searcher', spec.name, importers)}")
    factory = importers[spec.name]()
    if len(goals) > 1 and spec.name not in _SEVERAL_OBJECTIVES:
        raise InputError(
            f"search.metric: {spec.name} takes one metric; several need one of "
            f"{', '.join(sorted(_SEVERAL_OBJECTIVES))}"
        )
    logging.getLogger("optuna").setLevel(logging.WARNING)
    options = dict(spec.options)
    if "seed" in inspect.signature(factory).parameters:
        options.setdefault("seed", seed)
    try:
        searcher: Searcher = _construct(
            factory, options, "search.options", as_ray_takes(goals), as_ray_takes(goals.values())
        )
    except (ImportError, AssertionError) as error:
        raise InputError(f"search.name: {spec.name!r} is not installed ({error})") from error
    return searcher


def make_scheduler(spec: SchedulerSpec, goal: str) -> TrialScheduler:
    """The scheduler that a study names.

    Raises:
        InputError: There is no such scheduler, it changes settings of running trials, or it
            refuses its options.
    """
    allowed = _stopping_schedulers()
    factory = allowed.get(_ALIASES.get(spec.name, spec.name))
    if factory is None:
        names = {*allowed, *_ALIASES}
        raise InputError(f"scheduler.name: {unknown_name('scheduler', spec.name, names)}")
    options = dict(spec.options)
    if "stop_last_trials" in inspect.signature(factory).parameters:
        # A trial that got as far as max_t was not stopped early: let it finish.
        options.setdefault("stop_last_trials", False)
    scheduler: TrialScheduler = _construct(factory, options, "scheduler.options", spec.metric, goal)
    return scheduler


def require_seed_means(scheduler: TrialScheduler, times: Sequence[str]) -> None:
    """Refuse schedulers that cannot decide on the mean of a configuration's seeds.

    Args:
        scheduler: The scheduler.
        times: Measures of a trial's progress that all seeds report.

    Raises:
        InputError: It is not ASHA, which never pauses a trial, or counts in something else.
    """
    from ray.tune.schedulers import AsyncHyperBandScheduler

    if not isinstance(scheduler, AsyncHyperBandScheduler):
        raise InputError(
            "scheduler: with several seeds only asha decides on their mean (with brackets, it is "
            "HyperBand); take asha, or give one seed"
        )
    if (attribute := scheduler_time(scheduler)) not in times:
        raise InputError(
            f"scheduler.options: with several seeds time_attr must be one of {', '.join(times)}, "
            f"got {attribute!r}"
        )


def _stopping_schedulers() -> dict[str, Any]:
    return {name: kind for name, kind in tune_schedulers().items() if name not in _CHANGING}


def _construct(factory: Any, options: Mapping[str, Any], field: str, metric: Any, mode: Any) -> Any:
    """Call a Ray class with options that it knows (Ray's own factories drop unknown ones)."""
    allowed = [
        name
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD and name not in {"metric", "mode"}
    ]
    for name in options:
        if name not in allowed:
            raise InputError(f"{field}: {unknown_name('option', name, allowed)}")
    try:
        return factory(metric=metric, mode=mode, **options)
    except (TypeError, ValueError) as error:
        raise InputError(f"{field}: {factory.__name__} refuses {dict(options)}: {error}") from error
