"""A study: an experiment over a space of settings and seeds, run and reported as one thing."""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from modicum.errors import InputError, from_validation, unknown_name
from modicum.execution.recorder import Recorder
from modicum.experiment.config import Config, flatten, settings_of, unflatten
from modicum.experiment.experiment import Experiment
from modicum.experiment.metric import Metric
from modicum.experiment.registry import as_experiment
from modicum.experiment.setting_filters import find_baseline, find_cell, require_settings
from modicum.planning.space import (
    Grid,
    combinations,
    describe_space,
    domains_of,
    expand,
    is_domain,
    merge,
    parse_space,
)
from modicum.planning.spec import ReportSpec, SchedulerSpec, SearchSpec, StudySpec, TrackingSpec
from modicum.planning.trial_plan import TrialPlan, plan_trial
from modicum.ray_support.connection import check_address, connected, dashboard_links
from modicum.ray_support.private_api import scheduler_objective
from modicum.run_folder import provenance
from modicum.storage import StorageFolder
from modicum.yaml_io import dump_yaml, read_yaml

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler
    from ray.tune.search import Searcher

    from modicum.execution.tune.seeded_search import SeededSearch
    from modicum.results.reference import Reference
    from modicum.study_results import Results

Runner = Literal["ray", "local"]

# The run folder's copy of the study's reference table.
REFERENCE = "reference.yaml"

_MOST_TRIALS = 1_000_000

# Of a study's fields: None, or nothing behind the colon in YAML, stands for the default.
_MAY_BE_NONE = {"name", "search", "scheduler", "report", "tracking"}

# Schedulers that change a running trial's settings: its identity would no longer hold.
_CHANGING = {"pbt", "pbt_replay", "pb2", "resource_changing"}
_ALIASES = {"asha": "async_hyperband"}


class Study:
    """An experiment, the settings to try, the seeds, and what to report.

    Everything is checked when a study is made or at the latest before the first trial starts.

    Args:
        experiment: Registered name, or an `Experiment` class or instance of one's own.
        space: Settings (nested or by dotted name) to a value, `md.grid(...)` or any
            `ray.tune` domain; or a list of such spaces.
        seeds: How many seeds (0, 1, 2, ...), or which.
        name: Names the run folder; the experiment's name if left out.
        description: Shown in the report.
        exclude: Combinations of settings to leave out; a list of values means any of them.
        draws: How often random domains are drawn.
        seed: Seed of the draws.
        search: A `ray.tune` searcher with its metric and mode, or a `SearchSpec` mapping.
        samples: Suggestions in all, for a searcher given as an object.
        scheduler: A `ray.tune` scheduler with its metric and mode, or a `SchedulerSpec` mapping.
        report: What the report shows, as `ReportSpec` or a mapping.
        tracking: Logs for TensorBoard (on by itself), MLflow and Weights & Biases, as
            `TrackingSpec` or a mapping.

    Raises:
        InputError: Something is wrong with an argument, a setting or the data; names it.
    """

    def __init__(
        self,
        experiment: str | Experiment[Any] | type[Experiment[Any]],
        space: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        seeds: int | Iterable[int] = 5,
        name: str | None = None,
        description: str = "",
        exclude: Sequence[Mapping[str, Any]] = (),
        draws: int = 1,
        seed: int = 0,
        search: Searcher | SearchSpec | Mapping[str, Any] | None = None,
        samples: int | None = None,
        scheduler: TrialScheduler | SchedulerSpec | Mapping[str, Any] | None = None,
        report: ReportSpec | Mapping[str, Any] | None = None,
        tracking: TrackingSpec | Mapping[str, Any] | None = None,
    ) -> None:
        self._searcher_object, search_fields = _split_search(search, samples)
        self._scheduler_object, scheduler_fields = _split_scheduler(scheduler)
        fields = {
            "name": name,
            "description": description,
            "exclude": list(exclude) if isinstance(exclude, tuple) else exclude,
            "seeds": seeds
            if isinstance(seeds, str) or not isinstance(seeds, Iterable)
            else [*seeds],
            "draws": draws,
            "seed": seed,
            "search": search_fields,
            "scheduler": scheduler_fields,
            "report": report,
            "tracking": tracking,
        }
        self._set_up(experiment, space, fields, directory=Path.cwd(), source="study")

    def _set_up(
        self,
        experiment: str | Experiment[Any] | type[Experiment[Any]],
        space: object,
        fields: Mapping[str, Any],
        *,
        directory: Path,
        source: str,
    ) -> None:
        """Check and keep what was given; paths are relative to the directory."""
        self.experiment = as_experiment(experiment)
        self._directory = directory
        name = self.experiment.name
        raw: dict[str, Any] = {"name": name, "experiment": name, "space": {}}
        raw |= {
            field: value
            for field, value in fields.items()
            if value is not None or field not in _MAY_BE_NONE
        }
        try:
            self.spec = StudySpec.model_validate(raw)
        except ValidationError as error:
            raise from_validation(error, StudySpec, source, raw) from None
        spaces = list(space) if isinstance(space, list | tuple) else [space]
        if not spaces or not all(isinstance(entry, Mapping) for entry in spaces):
            raise InputError(
                f"space: expected settings by name, or a list of such mappings, got {space!r}"
            )
        self.spaces = [parse_space(entry) for entry in spaces if isinstance(entry, Mapping)]
        self._check_names()
        self._check_search()
        self._check_report()

    @classmethod
    def from_yaml(
        cls,
        path: str | Path,
        *,
        overrides: Mapping[str, Any] | None = None,
        seeds: int | None = None,
    ) -> Study:
        """A study from its file.

        Args:
            path: The study file (see `StudySpec` for what may stand in it).
            overrides: Settings by dotted name that replace those of the file's space.
            seeds: Replaces the file's seeds.

        Raises:
            InputError: The file is missing, broken, or asks for something impossible.
        """
        path = Path(path)
        raw = read_yaml(path)
        if not isinstance(raw, Mapping):
            raise InputError(f"{path}: expected settings by name, got {type(raw).__name__}")
        raw = dict(raw)
        raw.setdefault("name", path.stem)
        for unknown in raw.keys() - StudySpec.model_fields.keys():
            raise InputError(f"{path}: {unknown_name('field', unknown, StudySpec.model_fields)}")
        for required in ("experiment", "space"):
            if required not in raw:
                raise InputError(f"{path}: the field {required!r} is missing")
        if not isinstance(raw["experiment"], str):
            raise InputError(f"{path}: experiment: expected a name, got {raw['experiment']!r}")
        space = raw.pop("space")
        if overrides:
            many = isinstance(space, list)
            entries = space if many else [space]
            if all(isinstance(entry, Mapping) for entry in entries):
                merged = [merge(entry, overrides) for entry in entries]
                space = merged if many else merged[0]
        if seeds is not None:
            raw["seeds"] = seeds
        experiment = raw.pop("experiment")
        study = cls.__new__(cls)
        study._searcher_object = study._scheduler_object = None
        study._set_up(experiment, space, raw, directory=path.parent, source=str(path))
        return study

    # What is wrong is found here, before anything starts.

    def _check_names(self) -> None:
        known = settings_of(self.experiment.Config)
        for space in self.spaces:
            require_settings(space, known, "space")
        for entry in self.spec.exclude:
            require_settings(entry, known, "exclude")

    def _check_search(self) -> None:
        spec = self.spec
        drawn = {name for space in self.spaces for name in domains_of(space)}
        if spec.draws > 1 and not drawn:
            raise InputError("draws: more than one draw needs a random domain in the space")
        if spec.search is not None:
            self._goal(spec.search.metric, spec.search.goal, "search.metric")
            if len(self.spaces) > 1:
                raise InputError("search: a searcher needs a single space, not a list")
            for name, value in self.spaces[0].items():
                if isinstance(value, Grid):
                    raise InputError(
                        f"space.{name}: a searcher cannot walk a grid; use choice instead"
                    )
            if not drawn:
                raise InputError("search: the space has no domain to search in")
        if spec.scheduler is not None:
            self._goal(spec.scheduler.metric, spec.scheduler.goal, "scheduler.metric")
            if len(spec.seed_list) > 1:
                raise InputError(
                    "scheduler: early stopping would keep some seeds of a cell and drop others; "
                    "give one seed, or leave the scheduler out"
                )
        self.make_scheduler()
        self.make_searcher()

    def _goal(self, metric: str, goal: str | None, field: str) -> str:
        declared = self._metric(metric, field).goal
        if goal is None and declared is None:
            raise InputError(f"{field}: say whether {metric!r} is to be large or small (goal)")
        return goal or declared or "max"

    def _check_report(self) -> None:
        report = self.spec.report
        known = settings_of(self.experiment.Config)
        for role in ("rows", "columns", "by"):
            names = getattr(report, role) or []
            require_settings(names, known, f"report.{role}", also=["seed"])
        require_settings(report.baseline or {}, known, "report.baseline", also=["seed"])
        for name in report.baseline or {}:
            if report.rows is not None and name not in report.rows:
                raise InputError(
                    f"report.baseline: {name!r} is not among the rows ({', '.join(report.rows)})"
                )
        for metric in report.metrics or []:
            self._metric(metric, "report.metrics")
        for target in report.targets:
            self._metric(target.metric, "report.targets")
        for picture in report.pictures:
            for metric in (picture.against, *picture.metrics):
                self._metric(metric, "report.pictures")
        # Read now, so that a missing or broken table is said at once.
        self._reference = self._read_reference()

    def _read_reference(self) -> Reference | None:
        if self.spec.report.reference is None:
            return None
        from modicum.results.reference import Reference

        return Reference.load(self._directory / self.spec.report.reference, self.experiment)

    def _metric(self, metric: str, field: str) -> Metric:
        """The declaration of a metric that a field of the study names."""
        if "*" in metric:
            raise InputError(f"{field}: name one metric, not the pattern {metric!r}")
        try:
            return self.experiment.metric(metric)
        except InputError as error:
            raise InputError(f"{field}: {error}") from None

    # From settings to trials.

    def _config(self, settings: Mapping[str, Any]) -> Config:
        model = self.experiment.Config
        try:
            return model.model_validate(settings)
        except ValidationError as error:
            raise from_validation(error, model, "space", settings) from None

    def _trials_of(self, config: Config) -> list[TrialPlan]:
        """A configuration with every seed, checked against its data."""
        self.experiment.check(config)
        digests = self.experiment.data_digests(config)
        return [plan_trial(self.experiment, config, s, digests) for s in self.spec.seed_list]

    @cached_property
    def configurations(self) -> list[Config]:
        """Every configuration, checked as far as that goes without its data.

        For a searcher this is one example of what it might choose.

        Raises:
            InputError: A setting has an impossible value, or nothing is left to run.
        """
        draws = 1 if self.spec.search is not None else self.spec.draws
        count = sum(combinations(space, draws) for space in self.spaces)
        if count * len(self.spec.seed_list) > _MOST_TRIALS:
            raise InputError(
                f"space: with its draws and seeds a study may have {_MOST_TRIALS:,} trials at "
                f"most, got {count * len(self.spec.seed_list):.3g}"
            )
        found = [
            self._config(settings)
            for space in self.spaces
            for settings in expand(space, draws, self.spec.seed)
            if self.spec.search is not None or not self._excluded(settings)
        ]
        if not found:
            raise InputError("exclude: nothing is left to run")
        return found

    @cached_property
    def trials(self) -> list[TrialPlan]:
        """Every trial of the study, checked against its data; see `configurations`.

        Raises:
            InputError: A configuration or its data is impossible.
        """
        planned = [plan for config in self.configurations for plan in self._trials_of(config)]
        if self.spec.search is None:
            self._warn_ignored([plan.columns for plan in planned])
        found = list({plan.id: plan for plan in planned}.values())
        self._check_reference(found)
        self._check_baseline(found)
        return found

    def _check_baseline(self, trials: Sequence[TrialPlan]) -> None:
        """A baseline that names no row, or several, would only fail after the work."""
        report = self.spec.report
        if report.baseline is None or self.spec.search is not None:
            return
        names = report.rows or list(report.baseline)
        rows = [{name: plan.columns.get(name) for name in names} for plan in trials]
        find_baseline(_distinct(rows), report.baseline)

    def _check_reference(self, trials: Sequence[TrialPlan]) -> None:
        """A reference that cannot tell our cells apart would only fail after the work."""
        cells = _distinct([plan.columns for plan in trials])
        for cell in self._reference.cells if self._reference is not None else []:
            find_cell(cells, cell.where)

    @property
    def size(self) -> int:
        """Number of trials, as far as it can be told without data."""
        seeds = len(self.spec.seed_list)
        if self.spec.search is not None:
            return self.spec.search.samples * seeds
        return len(self.configurations) * seeds

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
            for name in space:
                if name not in used:
                    warnings.warn(
                        f"the setting {name!r} is ignored: no configuration of the study uses it",
                        stacklevel=4,
                    )

    def make_searcher(self) -> Searcher | None:
        """The searcher, ready to be asked; None where the study has none."""
        spec = self.spec.search
        if spec is None:
            return None
        if self._searcher_object is not None:
            return self._searcher_object
        from ray.tune.search import SEARCH_ALG_IMPORT

        if spec.name not in SEARCH_ALG_IMPORT or spec.name in {"random", "variant_generator"}:
            names = set(SEARCH_ALG_IMPORT) - {"random", "variant_generator"}
            raise InputError(f"search.name: {unknown_name('searcher', spec.name, names)}")
        importer: Any = SEARCH_ALG_IMPORT[spec.name]
        factory = importer()
        logging.getLogger("optuna").setLevel(logging.WARNING)
        goal = self._goal(spec.metric, spec.goal, "search.metric")
        options = dict(spec.options)
        if "seed" in inspect.signature(factory).parameters:
            options.setdefault("seed", self.spec.seed)
        try:
            built: Searcher = _build(factory, options, "search.options", spec.metric, goal)
        except (ImportError, AssertionError) as error:
            raise InputError(f"search.name: {spec.name!r} is not installed ({error})") from error
        return built

    def make_scheduler(self) -> TrialScheduler | None:
        """The scheduler; None where the study has none."""
        spec = self.spec.scheduler
        if spec is None:
            return None
        from ray.tune import schedulers

        known = set(schedulers.SCHEDULER_IMPORT) - _CHANGING | set(_ALIASES)
        if self._scheduler_object is not None:
            changing = (schedulers.PopulationBasedTraining, schedulers.ResourceChangingScheduler)
            if isinstance(self._scheduler_object, changing):
                raise InputError(
                    "scheduler: it changes the settings of running trials, which then have no "
                    f"identity (allowed: {', '.join(sorted(known))})"
                )
            return self._scheduler_object
        name = _ALIASES.get(spec.name, spec.name)
        if name in _CHANGING or name not in schedulers.SCHEDULER_IMPORT:
            raise InputError(f"scheduler.name: {unknown_name('scheduler', spec.name, known)}")
        goal = self._goal(spec.metric, spec.goal, "scheduler.metric")
        factory: Any = schedulers.SCHEDULER_IMPORT[name]
        options = dict(spec.options)
        if "stop_last_trials" in inspect.signature(factory).parameters:
            # A trial that got as far as max_t was not stopped early: let it finish.
            options.setdefault("stop_last_trials", False)
        built: TrialScheduler = _build(factory, options, "scheduler.options", spec.metric, goal)
        return built

    # Running.

    @property
    def main_metric(self) -> str | None:
        """The metric of "best so far": the report's first, else the first with a goal."""
        return self.spec.report.main_metric(
            {name: metric.goal for name, metric in self.experiment.metrics.items()}
        )

    def run(
        self,
        out: str | Path | None = None,
        *,
        runner: Runner = "ray",
        address: str | None = None,
        cpus: int | None = None,
        quiet: bool = False,
        tensorboard: bool = True,
        command: str | None = None,
    ) -> Results:
        """Run what is missing, write the report, and return the results.

        Running again with the same `out` continues; a larger grid or more seeds extends.

        Args:
            out: Run folder: a path, or a URI of a filesystem that pyarrow knows;
                `runs/<name>` if left out.
            runner: `ray`, or `local` for no Ray at all.
            address: A running Ray cluster; a private one is started if left out.
            cpus: CPUs of the private cluster.
            quiet: No progress display.
            tensorboard: False to write no TensorBoard logs, whatever the study says.
            command: What the user typed, for the provenance.

        Raises:
            InputError: Something is wrong with the study; nothing was started.
            StorageError: The run folder cannot be written any more; what it holds is kept.
        """
        from modicum.results.store import RESULTS
        from modicum.run_folder.resource_usage import Usage
        from modicum.study_results import Results
        from modicum.tracking.trackers import make_tracking

        if runner not in ("ray", "local"):
            raise InputError(f"runner: expected 'ray' or 'local', got {runner!r}")
        if runner == "local":
            self._check_local(address)
        elif address is not None:
            check_address(address)
        usage = Usage()
        plans = self.trials
        folder = StorageFolder(out if out is not None else Path("runs") / self.spec.name)
        folder.check_writable()
        with usage, _locked(folder):
            tracking = make_tracking(self.spec, folder, tensorboard=tensorboard)
            recorder = Recorder(
                folder,
                self.experiment,
                commit=provenance.code_version(type(self.experiment)),
                keep_stopped=self.spec.scheduler is not None,
                tracking=tracking,
            )
            # Results of an earlier run must not be taken for this one's.
            folder.remove(RESULTS)
            provenance.write(folder, command)
            folder.write_text(dump_yaml(self.resolved()), "study.yaml")
            if self.spec.report.reference is not None:
                source = self._directory / self.spec.report.reference
                folder.write_text(source.read_text(encoding="utf-8"), REFERENCE)
            try:
                self._run_trials(recorder, plans, runner, address, cpus, quiet)
            finally:
                if folder.failure is None:
                    results = Results.consolidate(folder)
                    provenance.write_usage(folder, usage)
            if folder.failure is not None:
                raise folder.failure
            results.write_summary()
            results.report(folder.display("report.html"))
            return results

    def _run_trials(
        self,
        recorder: Recorder,
        plans: Sequence[TrialPlan],
        runner: Runner,
        address: str | None,
        cpus: int | None,
        quiet: bool,
    ) -> None:
        from modicum.monitoring.progress import Progress
        from modicum.monitoring.publisher import StatusPublisher
        from modicum.run_folder.stop_requests import StopRequests

        search = self.spec.search
        # A search's trials are known only as it goes; its plans are an example.
        recorder.add(plans if search is None else [])
        total = None if search is None else search.samples * len(self.spec.seed_list)
        progress = Progress(recorder, self.main_metric, quiet=quiet, total=total)
        requests = StopRequests()
        if runner == "local":
            from modicum.execution.local import run_local

            publisher = StatusPublisher(recorder, progress, requests)
            with progress, recorder.tracking, publisher:
                run_local(self.experiment, recorder, requests)
            return
        if search is None and not recorder.unfinished():
            return
        with connected(address, cpus):
            from modicum.execution.tune.runner import run_on_tune
            from modicum.monitoring.study_actor import ClusterPublisher

            seeded = self._seeded_search(recorder, plans)
            publisher = StatusPublisher(
                recorder,
                progress,
                requests,
                links=dashboard_links(),
                cluster=ClusterPublisher(recorder.folder),
            )
            with progress, recorder.tracking, publisher:
                run_on_tune(
                    self.experiment,
                    recorder,
                    search=seeded,
                    scheduler=self.make_scheduler(),
                    max_concurrent=None if search is None else search.max_concurrent,
                    requests=requests,
                )

    def _seeded_search(
        self, recorder: Recorder, examples: Sequence[TrialPlan]
    ) -> SeededSearch | None:
        spec, searcher = self.spec.search, self.make_searcher()
        if spec is None or searcher is None:
            return None
        from modicum.execution.tune.seeded_search import SeededSearch

        space = self.spaces[0]
        fixed = {name: value for name, value in space.items() if not is_domain(value)}

        def plan(choice: Mapping[str, Any]) -> list[TrialPlan]:
            settings = unflatten({**fixed, **choice})
            if self._excluded(settings):
                raise InputError("exclude: the choice is left out")
            return self._trials_of(self._config(settings))

        signature = {
            "experiment": [self.experiment.name, self.experiment.version],
            "space": describe_space(space),
            "search": spec.model_dump(mode="json", exclude={"samples", "max_concurrent"}),
            "seeds": self.spec.seed_list,
            "digests": [dict(plan.digests) for plan in examples],
        }

        return SeededSearch(
            searcher,
            domains_of(space),
            plan,
            recorder,
            metric=spec.metric,
            goal=self._goal(spec.metric, spec.goal, "search.metric"),
            samples=spec.samples,
            seeds=len(self.spec.seed_list),
            examples=examples,
            signature=json.dumps(signature, sort_keys=True, default=repr),
        )

    def _check_local(self, address: str | None) -> None:
        from modicum.execution.local import require_local

        require_local(self.experiment)
        if address is not None:
            raise InputError("address: the local runner uses no cluster; leave one of them out")
        if self.spec.tracking.wandb is not None:
            raise InputError(
                "tracking.wandb: it logs from Ray's actors, which the local runner does not start; "
                "leave it or runner='local' (--local) out"
            )
        for field, value in (("search", self.spec.search), ("scheduler", self.spec.scheduler)):
            if value is not None:
                raise InputError(
                    f"{field}: the local runner has grids and random spaces only; "
                    "leave runner='local' (--local) out"
                )

    def resolved(self) -> dict[str, Any]:
        """The study as plain data, for `study.yaml`; its reference table lies beside it."""
        data = self.spec.model_dump(mode="json", exclude_none=True)
        described = [describe_space(space) for space in self.spaces]
        data["space"] = described[0] if len(described) == 1 else described
        if self.spec.report.reference is not None:
            data["report"]["reference"] = REFERENCE
        return data


def _distinct(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return list({repr(row): row for row in rows}.values())


def _split_search(
    search: Searcher | SearchSpec | Mapping[str, Any] | None, samples: int | None
) -> tuple[Searcher | None, SearchSpec | Mapping[str, Any] | None]:
    """A searcher object apart from what its specification says of it."""
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


def _split_scheduler(
    scheduler: TrialScheduler | SchedulerSpec | Mapping[str, Any] | None,
) -> tuple[TrialScheduler | None, SchedulerSpec | Mapping[str, Any] | None]:
    if scheduler is None or isinstance(scheduler, SchedulerSpec | Mapping | str | list):
        return None, scheduler
    metric, mode = scheduler_objective(scheduler)
    if not metric:
        raise InputError("scheduler: give the scheduler its metric and mode")
    return scheduler, {"name": type(scheduler).__name__, "metric": metric, "goal": mode}


def _build(factory: Any, options: Mapping[str, Any], field: str, metric: str, mode: str) -> Any:
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


@contextlib.contextmanager
def _locked(folder: StorageFolder) -> Iterator[None]:
    """Keep a second driver out of a run folder (on this machine's own filesystem only).

    The lock is the operating system's: a killed driver leaves none behind.
    """
    if folder.local is None:
        yield
        return
    from filelock import FileLock, Timeout

    lock = FileLock(folder.local / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"--out {folder.uri!r}: another run is working in this folder") from error
    try:
        yield
    finally:
        lock.release()
