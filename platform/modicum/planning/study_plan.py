"""A study's configurations and trials, and what its fields must satisfy before anything starts."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from modicum.errors import InputError, validated
from modicum.experiment.config import Config, flatten, settings_of, unflatten
from modicum.experiment.experiment import Experiment
from modicum.experiment.metric import Metric
from modicum.experiment.setting_filters import find_baseline, find_cell, require_settings
from modicum.planning.expansion import (
    combinations,
    expand,
    is_random,
    search_domains,
    settings_of_choice,
)
from modicum.planning.search import (
    SearchPlan,
    make_scheduler,
    make_searcher,
    require_seed_means,
)
from modicum.planning.space import (
    Grid,
    Groups,
    conditional_names,
    describe_space,
    domains_of,
    setting_names,
)
from modicum.planning.spec import SearchSpec, StudySpec
from modicum.planning.trial_plan import TrialPlan, plan_trial

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler
    from ray.tune.search import Searcher

Spaces = Sequence[Mapping[str, Any]]

_MOST_TRIALS = 1_000_000


@dataclass(frozen=True)
class StudyPlan:
    """Expands a study with checked fields to configurations and trials.

    Everything here raises `InputError` for a setting, data or an option that is impossible.
    The spaces are parsed; a searcher or scheduler is one that was given as an object;
    `reference_cells` holds the settings of each cell of the study's reference table.
    """

    experiment: Experiment[Any]
    spec: StudySpec
    spaces: Spaces
    searcher: Searcher | None
    scheduler: TrialScheduler | None
    reference_cells: Sequence[Mapping[str, Any]]

    @cached_property
    def configurations(self) -> list[Config]:
        """Every configuration; for a search, one example of its choices."""
        spec = self.spec
        draws = 1 if spec.search is not None else spec.draws
        count = sum(combinations(space, draws) for space in self.spaces) * len(spec.seed_list)
        if count > _MOST_TRIALS:
            raise InputError(
                f"space: with its draws and seeds a study may have {_MOST_TRIALS:,} trials at "
                f"most, got {count:.3g}"
            )
        found = [
            self._config(settings)
            for space in self.spaces
            for settings in expand(space, draws, spec.seed)
            if spec.search is not None or not self._excluded(settings)
        ]
        if not found:
            raise InputError("exclude: nothing is left to run")
        return found

    @cached_property
    def trials(self) -> list[TrialPlan]:
        """Every trial, checked against its data; for a search, the trials of its example."""
        planned = [plan for config in self.configurations for plan in self._trials_of(config)]
        columns = [plan.columns for plan in planned]
        if self.spec.search is None:
            self._warn_ignored(columns)
        # What a report refuses would otherwise fail only after the work.
        cells = _distinct(columns)
        for where in self.reference_cells:
            find_cell(cells, where)
        report = self.spec.report
        for baseline in report.baseline if self.spec.search is None else ():
            names = report.rows or list(baseline)
            rows = _distinct([{name: entry.get(name) for name in names} for entry in cells])
            find_baseline(rows, baseline)
        return list({plan.id: plan for plan in planned}.values())

    @property
    def size(self) -> int:
        """Number of trials, as far as it is known without data."""
        if self.spec.search is not None:
            return self.spec.search.samples * len(self.spec.seed_list)
        return len(self.configurations) * len(self.spec.seed_list)

    def make_scheduler(self) -> TrialScheduler | None:
        """The scheduler, given as an object or constructed; None for a study without one.

        Raises:
            InputError: It refuses its options, or cannot decide on means over seeds.
        """
        spec, scheduler = self.spec.scheduler, self.scheduler
        if spec is None:
            return None
        if scheduler is None:
            goal = goal_of(self.experiment, spec.metric, spec.goal, "scheduler.metric")
            scheduler = make_scheduler(spec, goal)
        if len(self.spec.seed_list) > 1:
            require_seed_means(
                scheduler, ["training_iteration", "budget", *self.experiment.metrics]
            )
        return scheduler

    def make_searcher(self) -> Searcher | None:
        """The searcher, given as an object or constructed; None for a study without one."""
        spec = self.spec.search
        if spec is None or self.searcher is not None:
            return self.searcher
        return make_searcher(spec, self._goals_of(spec), self.spec.seed)

    def make_search(self) -> SearchPlan | None:
        """The search, with its searcher; None for a study without one."""
        spec, searcher = self.spec.search, self.make_searcher()
        if spec is None or searcher is None:
            return None
        space, seeds = self.spaces[0], self.spec.seed_list
        known, searched = settings_of(self.experiment.Config), search_domains(space)
        signature = {
            "experiment": [self.experiment.name, self.experiment.version],
            # As in a trial's identity: a path or a log level starts no other search.
            "space": {
                name: value
                for name, value in describe_space(space).items()
                if name in searched or name not in known or known[name].identity
            },
            "search": spec.model_dump(mode="json", exclude={"samples"}),
            "seeds": seeds,
            "digests": [dict(plan.digests) for plan in self.trials],
        }
        return SearchPlan(
            spec=spec,
            searcher=searcher,
            goals=self._goals_of(spec),
            domains=searched,
            trials_of=self._trials_of_choice,
            seeds=len(seeds),
            examples=self.trials,
            signature=json.dumps(signature, sort_keys=True, default=repr),
        )

    def _goals_of(self, search: SearchSpec) -> dict[str, str]:
        return goals_of(self.experiment, search)

    def _trials_of_choice(self, choice: Mapping[str, Any]) -> list[TrialPlan]:
        settings = unflatten(settings_of_choice(self.spaces[0], choice))
        if self._excluded(settings):
            raise InputError("exclude: the choice is left out")
        return self._trials_of(self._config(settings))

    def _config(self, settings: Mapping[str, Any]) -> Config:
        return validated(self.experiment.Config, settings, "space")

    def _trials_of(self, config: Config) -> list[TrialPlan]:
        """A configuration with every seed, checked against its data."""
        self.experiment.check(config)
        digests = self.experiment.data_digests(config)
        # Settings of the groups that were not chosen: they keep their defaults, and are not shown.
        given = flatten(config.model_dump(exclude_unset=True))
        hidden = {name for space in self.spaces for name in conditional_names(space)} - set(given)
        return [
            plan_trial(self.experiment, config, seed, digests, hidden)
            for seed in self.spec.seed_list
        ]

    def _excluded(self, settings: Mapping[str, Any]) -> bool:
        known = settings_of(self.experiment.Config)
        flat = {name: info.default for name, info in known.items()} | flatten(settings)
        return any(
            all(
                flat.get(name) in value if isinstance(value, list) else flat.get(name) == value
                for name, value in entry.items()
            )
            for entry in self.spec.exclude
        )

    def _warn_ignored(self, columns: Sequence[Mapping[str, Any]]) -> None:
        used = {name for entry in columns for name in entry}
        for space in self.spaces:
            for name in setting_names(space):
                if name not in used:
                    warnings.warn(
                        f"the setting {name!r} is ignored: no configuration of the study uses it",
                        stacklevel=5,
                    )


def _distinct(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return list({repr(row): row for row in rows}.values())


def check_fields(experiment: Experiment[Any], spec: StudySpec, spaces: Spaces) -> None:
    """Check that names exist, that a search is possible, and that the report can be made.

    Raises:
        InputError: A field is wrong; names the field and the allowed values.
    """
    known = settings_of(experiment.Config)
    for space in spaces:
        require_settings(setting_names(space), known, "space")
    for entry in spec.exclude:
        require_settings(entry, known, "exclude")
    _check_search(experiment, spec, spaces)
    _check_report(experiment, spec)


def _check_search(experiment: Experiment[Any], spec: StudySpec, spaces: Spaces) -> None:
    drawn = any(map(is_random, spaces))
    if spec.draws > 1 and not drawn:
        raise InputError("draws: more than one draw needs a random domain in the space")
    if spec.seed != 0 and not drawn:
        warnings.warn(
            f"seed: {spec.seed} has no effect, since nothing is drawn; `seeds` gives the number of "
            "seeds of each configuration",
            stacklevel=5,
        )
    if spec.search is not None:
        goals_of(experiment, spec.search)
        if len(spaces) > 1:
            raise InputError("search: a searcher needs a single space, not a list")
        _check_searchable(spaces[0], "space.")
        if not drawn:
            raise InputError("search: the space has no domain to search in")
    if spec.scheduler is not None:
        goal_of(experiment, spec.scheduler.metric, spec.scheduler.goal, "scheduler.metric")


def _check_searchable(space: Mapping[str, Any], prefix: str) -> None:
    """Refuse grids and functions, also in groups."""
    for name, value in space.items():
        if isinstance(value, Grid) or (isinstance(value, Groups) and value.kind == "grid"):
            raise InputError(f"{prefix}{name}: a searcher cannot walk a grid; use choice instead")
        if isinstance(value, Groups):
            for index, option in enumerate(value.options):
                _check_searchable(option, f"{prefix}{name}[{index}].")
        elif name in domains_of(space) and value.is_function():
            raise InputError(
                f"{prefix}{name}: a searcher cannot choose by a function; use sample_from with "
                "draws, without search"
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


def goals_of(experiment: Experiment[Any], search: SearchSpec) -> dict[str, str]:
    """Directions of a search's objectives, by metric; see `goal_of`."""
    return {
        metric: goal_of(experiment, metric, goal, "search.metric")
        for metric, goal in zip(search.metrics, search.goals, strict=True)
    }


def _declaration(experiment: Experiment[Any], metric: str, field: str) -> Metric:
    if "*" in metric:
        raise InputError(f"{field}: name one metric, not the pattern {metric!r}")
    try:
        return experiment.metric(metric)
    except InputError as error:
        raise InputError(f"{field}: {error}") from None
