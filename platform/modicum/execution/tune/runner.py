"""Trials on Ray Tune's function API, with its actors reused from trial to trial."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune import PlacementGroupFactory
from ray.tune.result import DONE

from modicum.execution.messages import EndMessage, RecordMessage
from modicum.execution.recorder import Recorder
from modicum.execution.run_trial import execute
from modicum.execution.tune.seeded_search import ListedTrials
from modicum.execution.tune.shared_folder import require_seen_by_all
from modicum.execution.tune.stop_scheduler import StoppingScheduler, StudyStopper
from modicum.experiment.experiment import Experiment
from modicum.experiment.fit import require_fit
from modicum.experiment.resources import Resources
from modicum.library_logging import quiet_loggers
from modicum.planning.trial_plan import TrialPlan
from modicum.ray_support.connection import node_resources
from modicum.run_folder.stop_requests import StopRequests

if TYPE_CHECKING:
    from ray.tune import Stopper
    from ray.tune.experiment import Trial as TuneTrial
    from ray.tune.schedulers import TrialScheduler
    from ray.tune.search import Searcher

    from modicum.execution.tune.seeded_search import SeededSearch

# A trial whose process died (a node lost, out of memory) is started again this often.
# An exception raised by the experiment is final at once.
RESTARTS = 2

MESSAGE = "modicum"
SCORE = "modicum_score"


def run_on_tune(
    experiment: Experiment[Any],
    recorder: Recorder,
    *,
    search: SeededSearch | None = None,
    scheduler: TrialScheduler | None = None,
    max_concurrent: int | None = None,
    requests: StopRequests | None = None,
) -> None:
    """Run a recorder's unfinished trials, or those that a search suggests, on Ray.

    Must be called inside `modicum.ray_support.connection.connected`.

    Args:
        experiment: What to run; it is pickled to the workers.
        recorder: Holds the trials and takes their messages.
        search: Suggests trials one by one; None runs what the recorder has.
        scheduler: Stops trials early.
        max_concurrent: Most trials at once; None for as many as fit.
        requests: What has been asked to stop.

    Raises:
        InputError: One trial needs more than the cluster has, or checkpoints would be written
            where some node does not see the run folder.
        StorageError: The run folder cannot be written any more.
        KeyboardInterrupt: The run was interrupted; what finished is kept.
    """
    plans = recorder.unfinished()
    if not plans and search is None:
        return
    configs = [
        experiment.Config.model_validate(plan.config)
        for plan in (plans if search is None else search.examples)
    ]
    nodes = node_resources()
    fit = min(require_fit(nodes, need) for need in set(map(experiment.resources, configs)))
    most = min(fit, max_concurrent or fit)
    saves = any(map(experiment.saves_checkpoints, configs))
    if saves:
        require_seen_by_all(recorder.folder)
    requests = requests or StopRequests()
    fit_trials = partial(
        _fit,
        experiment,
        recorder,
        scheduler=StoppingScheduler(scheduler, requests, _trial_id),
        stopper=StudyStopper(requests),
        most=most,
        saves=saves,
    )
    collector = _Collector(recorder, search, requests)
    if search is None:
        fit_trials(ListedTrials(plans), len(plans), collector)
    else:
        fit_trials(search, search.remaining, collector)
    for _ in range(RESTARTS):
        skipped = collector.take_skipped()
        if not skipped or requests.study or recorder.count("running"):
            break
        fit_trials(ListedTrials(skipped), len(skipped), collector)
    collector.give_up()
    if requests.study:
        # Tune has ended them without a word.
        for trial_id, state in recorder.trials.items():
            if state.status == "running":
                recorder.stop(trial_id, by="request")
        return
    if recorder.count("running") or (search is None and recorder.count("pending")):
        raise KeyboardInterrupt


def _fit(
    experiment: Experiment[Any],
    recorder: Recorder,
    source: Searcher,
    count: int,
    collector: _Collector,
    *,
    scheduler: TrialScheduler,
    stopper: Stopper,
    most: int,
    saves: bool,
) -> None:
    """Run the trials that a source suggests, `count` in all and `most` at once."""
    # Tune remarks on the log files that it was told not to write.
    quiet = quiet_loggers("ray.tune", "ray.tune.analysis", level=logging.CRITICAL)
    with _tune_storage(recorder, saves) as (storage, name), quiet:
        tuner = tune.Tuner(
            tune.with_resources(_trainable(experiment, recorder), _resources_of(experiment)),
            tune_config=tune.TuneConfig(
                search_alg=source,
                num_samples=count,
                scheduler=scheduler,
                reuse_actors=True,
                max_concurrent_trials=most,
                trial_name_creator=lambda trial: str(_trial_id(trial)),
                trial_dirname_creator=lambda trial: (
                    f"{_trial_id(trial)}-{recorder.trials[_trial_id(trial)].attempt + 1}"
                ),
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=storage,
                verbose=0,
                callbacks=[collector],
                stop=stopper,
                failure_config=tune.FailureConfig(max_failures=RESTARTS),
                checkpoint_config=tune.CheckpointConfig(
                    # The one before stays until the recorder knows of the new one.
                    num_to_keep=2,
                    checkpoint_score_attribute=SCORE if experiment.selection_metric else None,
                    checkpoint_score_order="max",
                ),
            ),
        )
        try:
            tuner.fit()
        except Exception:
            # Tune hides what its callbacks raise in the text of an exception of its own.
            if recorder.folder.failure is not None:
                raise recorder.folder.failure from None
            raise


def _resources_of(experiment: Experiment[Any]) -> Callable[[dict[str, Any]], Any]:
    def of(config: dict[str, Any]) -> PlacementGroupFactory:
        needs = Resources()
        if "plan" in config:
            needs = _needs(experiment, config["plan"]["config"])
        return PlacementGroupFactory(
            [needs.trial.as_ray(), *(actor.as_ray() for actor in needs.actors)]
        )

    return of


def _needs(experiment: Experiment[Any], config: Mapping[str, Any]) -> Resources:
    return experiment.resources(experiment.Config.model_validate(config))


def _trainable(experiment: Experiment[Any], recorder: Recorder) -> Callable[[dict[str, Any]], None]:
    """The function that runs in Tune's actors. It must not capture the recorder."""
    resume = {
        trial_id: state.checkpoint
        for trial_id, state in recorder.trials.items()
        if state.checkpoint is not None and state.status == "pending"
    }
    location, filesystem = recorder.folder.root, recorder.folder.filesystem
    storage = recorder.storage("{}")

    def modicum_trial(config: dict[str, Any]) -> None:
        plan = TrialPlan.from_json(config["plan"])
        checkpoint = tune.get_checkpoint()
        if checkpoint is None and plan.id in resume:
            checkpoint = tune.Checkpoint(f"{location}/{resume[plan.id]}", filesystem)
        with contextlib.ExitStack() as stack:
            folder: Path | None = None
            if checkpoint is not None:
                folder = Path(stack.enter_context(checkpoint.as_directory()))
            _report_all(experiment, plan, folder, storage.format(plan.id))

    return modicum_trial


def _report_all(
    experiment: Experiment[Any], plan: TrialPlan, folder: Path | None, storage: str
) -> None:
    metrics: dict[str, Any] = {}
    needs = _needs(experiment, plan.config)
    for message in execute(experiment, plan, needs, folder, echo=True, storage=storage):
        if isinstance(message, EndMessage):
            # Schedulers and searchers look for their metric in every report. Tune takes a trial
            # for ended when it says so, else only when it is asked for more: it would start one
            # again whose process dies in between.
            end = {MESSAGE: message, DONE: True, "host": socket.gethostname()}
            tune.report({**metrics, **end})
            continue
        metrics = {**message.metrics, "budget": message.budget}
        score = experiment.selection_score(message.metrics)
        if score is not None:
            metrics[SCORE] = score
        tune.report(
            {**metrics, MESSAGE: message, "host": socket.gethostname()},
            checkpoint=None
            if message.checkpoint is None
            else tune.Checkpoint.from_directory(str(message.checkpoint)),
        )


def _trial_id(trial: TuneTrial) -> str:
    return str(trial.config["plan"]["id"])


class _Collector(tune.Callback):
    """Hands what Tune reports to the recorder.

    Tune starts a trial again whose process died, but gives one up that was about to get the
    process of another and found it dead with its node. Such trials are kept for another round.
    """

    def __init__(
        self, recorder: Recorder, search: SeededSearch | None, requests: StopRequests
    ) -> None:
        self._requests = requests
        self._skipped: dict[str, tuple[str, str]] = {}
        self._recorder = recorder
        self._search = search
        self._started: set[str] = set()
        self._ended: set[str] = set()

    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        self._started.add(_trial_id(trial))
        self._recorder.start(_trial_id(trial))

    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        trial_id, message = _trial_id(trial), result[MESSAGE]
        if isinstance(message, RecordMessage):
            self._recorder.record(trial_id, message, result["host"])
        else:
            self._ended.add(trial_id)
            self._recorder.end(trial_id, message)

    def on_checkpoint(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        checkpoint: Any,
        **info: Any,
    ) -> None:
        where = "/".join(checkpoint.path.rstrip("/").split("/")[-3:])
        self._recorder.saved_checkpoint(_trial_id(trial), where)

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        # A trial that ran to its end said so; one that did not was stopped.
        trial_id = _trial_id(trial)
        on_request = self._requests.stops(trial_id)
        # Trials that had not started when the whole study was stopped stay pending.
        meant = trial_id in self._started or (on_request and not self._requests.study)
        if meant and trial_id not in self._ended:
            self._recorder.stop(trial_id, by="request" if on_request else "scheduler")
        self._settle()

    def _settle(self) -> None:
        """Tune tells its searcher before its callbacks, when the recorder knows nothing yet."""
        if self._search is not None:
            self._search.settle()

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        if _trial_id(trial) in self._started and self._requests.stops(_trial_id(trial)):
            # Its process was ended for that, when it had died too often already.
            self._recorder.stop(_trial_id(trial), by="request")
            self._settle()
            return
        trace = ""
        if trial.error_file and os.path.exists(trial.error_file):
            trace = Path(trial.error_file).read_text()
        lines = [line for line in trace.splitlines() if line.strip()]
        summary = lines[-1].strip() if lines else "the trial's process died"
        if _trial_id(trial) not in self._started:
            self._skipped[_trial_id(trial)] = summary, trace
            return
        self._recorder.lose(_trial_id(trial), summary, trace)
        self._settle()

    def take_skipped(self) -> list[TrialPlan]:
        """Trials that were given up before they had started, for another round."""
        plans = [self._recorder.trials[trial_id].plan for trial_id in self._skipped]
        self._skipped = {}
        return plans

    def give_up(self) -> None:
        """Record those that were given up in the last round, too."""
        for trial_id, (summary, trace) in self._skipped.items():
            self._recorder.lose(trial_id, summary, trace)
        self._settle()


@contextlib.contextmanager
def _tune_storage(recorder: Recorder, saves: bool) -> Iterator[tuple[str, str]]:
    """Where Tune puts checkpoints: in the run folder if there will be any, else aside."""
    if not saves:
        with tempfile.TemporaryDirectory(prefix="modicum-tune-") as aside:
            yield aside, "tune"
        return
    try:
        yield recorder.folder.uri, "checkpoints"
    finally:
        _drop_tune_state(recorder)


def _drop_tune_state(recorder: Recorder) -> None:
    """Tune's own bookkeeping is pickled and never read again here."""
    from pyarrow import fs

    folder = recorder.folder
    selector = fs.FileSelector(folder.path("checkpoints"), allow_not_found=True)
    for info in folder.filesystem.get_file_info(selector):
        if info.type == fs.FileType.File:
            folder.remove("checkpoints", info.base_name)
