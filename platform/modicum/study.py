"""A study: an experiment over a space of settings and seeds, run and reported as one thing."""

from __future__ import annotations

import contextlib
import math
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from modicum.errors import InputError
from modicum.execution.local import require_local, run_local
from modicum.execution.recorder import Recorder
from modicum.experiment.config import Config
from modicum.experiment.experiment import Experiment
from modicum.experiment.registry import as_experiment
from modicum.planning.search import describe_scheduler, describe_searcher
from modicum.planning.space import describe_space, parse_space
from modicum.planning.spec import ReportSpec, SchedulerSpec, SearchSpec, TrackingSpec
from modicum.planning.study_file import read_study_file, validate_spec
from modicum.planning.study_plan import StudyPlan, check_fields
from modicum.planning.trial_plan import TrialPlan
from modicum.ray_support.connection import (
    check_address,
    check_runtime_env,
    connected,
    dashboard_links,
)
from modicum.run_folder import provenance
from modicum.run_folder.stop_requests import StopRequest, StopRequests
from modicum.storage import StorageFolder
from modicum.tracking.listener import Tracking, make_tracking
from modicum.yaml_io import dump_yaml

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler
    from ray.tune.search import Searcher

    from modicum.study_results import Results

Runner = Literal["ray", "local"]

# The run folder's copy of the study's reference table.
REFERENCE = "reference.yaml"


class Study:
    """An experiment, the settings to try, the seeds, and the report.

    All input is checked when a study is made, or at the latest before the first trial starts.

    Args:
        experiment: Registered name of an experiment, `module:Class` of one without a registration,
            or an `Experiment` class or instance.
        space: Settings (nested or by dotted name) with a value, `md.grid(...)` or a `ray.tune`
            domain; or a list of such spaces.
        seeds: Number of seeds (0, 1, 2, ...), or the seeds themselves.
        name: Name of the study and of its run folder; the experiment's name if left out.
        description: Text for the report.
        exclude: Combinations of settings to leave out; a list of values means any of them.
        draws: Number of draws of random domains.
        seed: Seed of the draws.
        search: A `ray.tune` searcher with its metric and mode, or a `SearchSpec` mapping.
        samples: Number of suggestions in all, for a searcher given as an object.
        scheduler: A `ray.tune` scheduler with its metric and mode, or a `SchedulerSpec` mapping.
        max_concurrent: Largest number of trials at once; as many as fit if left out.
        time_budget: Time in seconds after which the study stops as on request.
        retries: Largest number of times that a trial is started again whose process died without
            a new record; on Ray.
        runtime_env: Ray's runtime environment of the trials' processes: variables (`env_vars`),
            packages (`pip`) and so on. It is stored and shown, so no secrets.
        report: Contents of the report, as `ReportSpec` or a mapping.
        tracking: Logs for TensorBoard (on by default), MLflow and Weights & Biases, as
            `TrackingSpec` or a mapping.

    Attributes:
        experiment: The experiment.
        spec: The study's fields, except for the space.
        spaces: The study's spaces, by flat dotted names.

    Raises:
        InputError: An argument, a setting or the data is wrong; names the field.
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
        max_concurrent: int | None = None,
        time_budget: float | None = None,
        retries: int = 2,
        runtime_env: Mapping[str, Any] | None = None,
        report: ReportSpec | Mapping[str, Any] | None = None,
        tracking: TrackingSpec | Mapping[str, Any] | None = None,
    ) -> None:
        self.experiment = as_experiment(experiment)
        given_searcher, search_fields = describe_searcher(search, samples)
        given_scheduler, scheduler_fields = describe_scheduler(scheduler)
        fields = {
            "name": self.experiment.name if name is None else name,
            "description": description,
            "exclude": list(exclude) if isinstance(exclude, tuple) else exclude,
            "seeds": [*seeds]
            if isinstance(seeds, Iterable) and not isinstance(seeds, str)
            else seeds,
            "draws": draws,
            "seed": seed,
            "search": search_fields,
            "scheduler": scheduler_fields,
            "max_concurrent": max_concurrent,
            "time_budget": time_budget,
            "retries": retries,
            "runtime_env": runtime_env,
            "report": report,
            "tracking": tracking,
        }
        reference = experiment if isinstance(experiment, str) else self.experiment.name
        self.spec = validate_spec(reference, fields, "study")
        if self.spec.runtime_env:
            check_runtime_env(self.spec.runtime_env)
        self.spaces = _parse_spaces(space)
        check_fields(self.experiment, self.spec, self.spaces)
        self._plan = StudyPlan(
            self.experiment,
            self.spec,
            self.spaces,
            given_searcher,
            given_scheduler,
            self._reference_cells(),
        )
        self._plan.make_searcher()
        self._plan.make_scheduler()

    @classmethod
    def from_yaml(
        cls,
        path: str | Path,
        *,
        overrides: Mapping[str, Any] | None = None,
        seeds: int | None = None,
    ) -> Study:
        """A study from its file, with other seeds, or with settings by dotted name in its space.

        Raises:
            InputError: The file is missing, broken, or asks for something impossible.
        """
        return cls(**read_study_file(Path(path), overrides, seeds))

    def _reference_cells(self) -> list[Mapping[str, Any]]:
        """Settings of the reference table's cells; a missing or broken table is an error now."""
        if self.spec.report.reference is None:
            return []
        from modicum.results.reference import Reference

        reference = Reference.load(Path(self.spec.report.reference), self.experiment)
        return [cell.where for cell in reference.cells]

    @property
    def configurations(self) -> list[Config]:
        """Every configuration, checked as far as possible without its data.

        For a search, one example of its choices.

        Raises:
            InputError: A setting has an impossible value, or nothing is left to run.
        """
        return self._plan.configurations

    @property
    def trials(self) -> list[TrialPlan]:
        """Every trial of the study, checked against its data; see `configurations`.

        Raises:
            InputError: A configuration or its data is impossible, or the report's reference or
                baseline does not fit the trials.
        """
        return self._plan.trials

    @property
    def size(self) -> int:
        """Number of trials, as far as it is known without data."""
        return self._plan.size

    @property
    def main_metric(self) -> str | None:
        """The metric of "best so far": the report's first, else the first with a goal."""
        return self.spec.report.main_metric(
            {name: metric.goal for name, metric in self.experiment.metrics.items()}
        )

    def resolved(self) -> dict[str, Any]:
        """The study as plain data, for `study.yaml`; its reference table lies beside it."""
        data = self.spec.model_dump(mode="json", exclude_none=True)
        described = [describe_space(space) for space in self.spaces]
        data["space"] = described[0] if len(described) == 1 else described
        if self.spec.report.reference is not None:
            data["report"]["reference"] = REFERENCE
        return data

    def run(
        self,
        out: str | Path | None = None,
        *,
        runner: Runner = "ray",
        address: str | None = None,
        cpus: int | None = None,
        wait_for_resources: float | None = None,
        quiet: bool = False,
        tensorboard: bool = True,
        command: str | None = None,
    ) -> Results:
        """Run the missing trials, write the report, and return the results.

        Running again with the same `out` continues the run; a larger grid or more seeds extend it.
        A trial whose files are damaged runs again, with a warning; its files are moved to
        `damaged/`.

        Args:
            out: Run folder: a path, or a URI of a filesystem that pyarrow knows;
                `runs/<name>` if left out.
            runner: `ray`, or `local` to run in this process without Ray.
            address: Address of a running Ray cluster; a private one is started if left out.
            cpus: Number of CPUs of the private cluster.
            wait_for_resources: Longest time in seconds to wait for the first nodes of a cluster
                that grows on demand; the study then also asks for more nodes while it runs.
            quiet: Show no progress.
            tensorboard: False to write no TensorBoard logs, whatever the study says.
            command: The user's command line, for the provenance.

        Raises:
            InputError: The study or an argument is wrong; nothing was started.
            StorageError: The run folder cannot be written any more; its contents are kept.
        """
        from modicum.results.store import RESULTS
        from modicum.study_results import Results

        self._check_runner(runner, address, wait_for_resources)
        if cpus is not None and cpus < 1:
            raise InputError(f"cpus: expected 1 or more CPUs of the private cluster, got {cpus}")
        usage = provenance.ResourceUsage()
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
                listeners=[tracking],
            )
            # Results of an earlier run must not be taken for this one's.
            folder.remove(RESULTS)
            self._write_inputs(folder, command)
            # A search adds its trials as it goes; its plans are an example.
            recorder.add(plans if self.spec.search is None else [])
            try:
                if runner == "local":
                    with self._watched(recorder, tracking, quiet) as requests, recorder:
                        run_local(recorder, requests)
                elif self.spec.search is not None or recorder.unfinished():
                    with (
                        connected(address, cpus),
                        self._watched(recorder, tracking, quiet, on_ray=True) as requests,
                        recorder,
                    ):
                        from modicum.execution.tune.runner import run_on_tune

                        search, scheduler = self._plan.make_search(), self._plan.make_scheduler()
                        run_on_tune(
                            recorder,
                            requests,
                            search=search,
                            scheduler=scheduler,
                            max_concurrent=self.spec.max_concurrent,
                            retries=self.spec.retries,
                            runtime_env=self.spec.runtime_env,
                            wait_for_resources=wait_for_resources,
                        )
            finally:
                if folder.failure is None:
                    results = Results.consolidate(folder)
                    provenance.write_usage(folder, usage)
            if folder.failure is not None:
                raise folder.failure
            results.write_summary()
            results.report(folder.display("report.html"))
            return results

    def _check_runner(self, runner: Runner, address: str | None, wait: float | None) -> None:
        """Refuse a runner that does not exist or cannot run this study."""
        if runner not in ("ray", "local"):
            raise InputError(f"runner: expected 'ray' or 'local', got {runner!r}")
        if wait is not None and not 0 <= wait < math.inf:
            raise InputError(f"wait_for_resources: expected seconds, got {wait!r}")
        if runner == "ray":
            if address is not None:
                check_address(address)
            return
        require_local(self.experiment)
        for field, given in (("address", address), ("wait_for_resources", wait)):
            if given is not None:
                raise InputError(
                    f"{field}: the local runner uses no cluster; leave one of them out"
                )
        if self.spec.tracking.wandb is not None:
            raise InputError(
                "tracking.wandb: it logs from Ray's actors, which the local runner does not start; "
                "leave it or runner='local' (--local) out"
            )
        if self.spec.runtime_env:
            raise InputError(
                "runtime_env: the local runner starts no processes; leave it or runner='local' "
                "(--local) out"
            )
        for field, value in (("search", self.spec.search), ("scheduler", self.spec.scheduler)):
            if value is not None:
                raise InputError(
                    f"{field}: the local runner has grids and random spaces only; "
                    "leave runner='local' (--local) out"
                )

    def _write_inputs(self, folder: StorageFolder, command: str | None) -> None:
        """Write the study's files and its provenance."""
        provenance.write(folder, command)
        folder.write_text(dump_yaml(self.resolved()), "study.yaml")
        if self.spec.report.reference is not None:
            source = Path(self.spec.report.reference)
            folder.write_text(source.read_text(encoding="utf-8"), REFERENCE)

    @contextlib.contextmanager
    def _watched(
        self, recorder: Recorder, tracking: Tracking, quiet: bool, *, on_ray: bool = False
    ) -> Iterator[StopRequests]:
        """Show progress, log and publish the status while trials run; yields requests to stop."""
        from modicum.monitoring.progress import Progress
        from modicum.monitoring.publisher import StatusPublisher

        requests = StopRequests()
        total = None if self.spec.search is None else self.size
        progress = Progress(recorder, self.main_metric, quiet=quiet, total=total)
        links, cluster = {}, None
        if on_ray:
            from modicum.monitoring.study_actor import ClusterPublisher

            links, cluster = dashboard_links(), ClusterPublisher(recorder.folder)
        publisher = StatusPublisher(recorder, progress, requests, links=links, cluster=cluster)
        with progress, tracking, publisher, self._limited(requests):
            yield requests

    @contextlib.contextmanager
    def _limited(self, requests: StopRequests) -> Iterator[None]:
        """Stop the study once its time budget is spent."""
        budget = self.spec.time_budget
        if budget is None:
            yield
            return
        timer = threading.Timer(budget, requests.add, [StopRequest.of(None)])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            if timer.finished.is_set():
                warnings.warn(
                    f"time_budget: {budget:g} s are spent; run the study again to continue it",
                    stacklevel=5,
                )
            timer.cancel()


def _parse_spaces(space: object) -> list[dict[str, Any]]:
    """Parse a study's spaces to flat dotted names.

    Raises:
        InputError: A space is not a mapping, or has an impossible value.
    """
    spaces = list(space) if isinstance(space, list | tuple) else [space]
    if not spaces or not all(isinstance(entry, Mapping) for entry in spaces):
        raise InputError(
            f"space: expected settings by name, or a list of such mappings, got {space!r}"
        )
    return [parse_space(entry) for entry in spaces if isinstance(entry, Mapping)]


@contextlib.contextmanager
def _locked(folder: StorageFolder) -> Iterator[None]:
    """Keep a second driver out of a run folder (on this machine's own filesystem only).

    The operating system holds the lock: a killed driver leaves none behind.
    """
    if folder.local is None:
        yield
        return
    lock = FileLock(folder.local / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"--out {folder.uri!r}: another run is working in this folder") from error
    try:
        yield
    finally:
        lock.release()
