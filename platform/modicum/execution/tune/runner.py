"""Trials on Ray Tune's function API, with actors that are reused from trial to trial."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ray import tune

from modicum.execution.recorder import Recorder
from modicum.execution.tune.capacity import Capacity, wait_for_room
from modicum.execution.tune.collector import Collector
from modicum.execution.tune.failures import Failures
from modicum.execution.tune.searchers import ListedTrials, SeededSearch
from modicum.execution.tune.seed_means import SeedMeans
from modicum.execution.tune.shared_folder import require_shared_folder
from modicum.execution.tune.stopping import StoppingScheduler, StudyStopper
from modicum.execution.tune.trainable import SCORE, make_trainable, trial_id
from modicum.experiment.resources import require_fit
from modicum.library_logging import quiet_loggers
from modicum.planning.search import SearchPlan
from modicum.ray_support.connection import forwarded_variables, node_resources
from modicum.ray_support.private_api import tune_actors_in
from modicum.run_folder.stop_requests import StopRequests
from modicum.run_folder.trial_record import CHECKPOINTS

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler


def run_on_tune(
    recorder: Recorder,
    requests: StopRequests,
    *,
    search: SearchPlan | None = None,
    scheduler: TrialScheduler | None = None,
    max_concurrent: int | None = None,
    retries: int,
    runtime_env: Mapping[str, Any],
    wait_for_resources: float | None = None,
) -> None:
    """Run a recorder's unfinished trials, or those that a search suggests, on Ray.

    Must be called inside `modicum.ray_support.connection.connected`.

    Args:
        recorder: Holds the trials and takes their messages; its experiment is pickled.
        requests: Trials to stop.
        search: Suggests trials one by one; None runs the recorder's.
        scheduler: Stops trials early.
        max_concurrent: Largest number of trials at once; None for as many as fit.
        retries: Largest number of times that a trial is started again whose process died without
            a new record. An exception raised by the experiment is final at once.
        runtime_env: Ray's runtime environment of the trials' actors, and of what they start.
        wait_for_resources: Longest time in seconds that a cluster which grows on demand has for
            its first nodes; None for a cluster that does not grow on demand.

    Raises:
        InputError: One trial needs more than the cluster has, or checkpoints would be written
            where some node does not see the run folder.
        StorageError: The run folder cannot be written any more.
        KeyboardInterrupt: The run was interrupted; the folder keeps what had finished.
    """
    experiment = recorder.experiment
    plans = recorder.unfinished() if search is None else search.examples
    needs = {experiment.resources(plan.config) for plan in plans}
    if wait_for_resources is not None:
        wait_for_room(needs, wait_for_resources)
    for need in needs:
        require_fit(node_resources(), need)
    saves = any(experiment.saves_checkpoints(plan.config) for plan in plans)
    if saves:
        require_shared_folder(recorder.folder)
    seeded = None if search is None else SeededSearch(recorder, search)
    failures = Failures(retries)
    collector = Collector(recorder, seeded, requests, failures)
    if scheduler is not None and len({p.seed for p in (*plans, *recorder.plans.values())}) > 1:
        scheduler = SeedMeans(scheduler, recorder)
    fit = partial(
        _fit,
        recorder,
        collector,
        StoppingScheduler(scheduler, requests, failures),
        StudyStopper(requests),
        Capacity(needs, max_concurrent, ahead=wait_for_resources is not None),
        saves=saves,
    )
    # The connection may be the user's own, and older than the variables.
    variables = {**forwarded_variables(), **runtime_env.get("env_vars", {})}
    with tune_actors_in({**runtime_env, "env_vars": variables}):
        fit(seeded or ListedTrials(experiment, plans), reuse=experiment.isolation == "reused")
        skipped = collector.take_skipped()
        if skipped and not requests.study and not recorder.count("running"):
            fit(ListedTrials(experiment, skipped), reuse=False)
    if requests.study:
        # Tune has ended the running trials without a call of its callbacks.
        for name, trial in recorder.trials.items():
            if trial.status == "running":
                recorder.stop(name, by="request")
        return
    if recorder.count("running") or (search is None and recorder.count("pending")):
        raise KeyboardInterrupt


def _fit(
    recorder: Recorder,
    collector: Collector,
    scheduler: StoppingScheduler,
    stopper: StudyStopper,
    capacity: Capacity,
    source: ListedTrials | SeededSearch,
    *,
    reuse: bool,
    saves: bool,
) -> None:
    """Run the trials of a source, in processes that are reused or not."""
    # Tune remarks on the log files that it was told not to write.
    quiet = quiet_loggers("ray.tune", "ray.tune.analysis", level=logging.CRITICAL)
    with _tune_storage(recorder, saves) as (storage, name), quiet:
        tuner = tune.Tuner(
            make_trainable(recorder),
            tune_config=tune.TuneConfig(
                search_alg=capacity.limited(source),
                num_samples=source.remaining,
                scheduler=scheduler,
                reuse_actors=reuse,
                trial_name_creator=lambda trial: trial_id(trial),
                trial_dirname_creator=lambda trial: (
                    f"{trial_id(trial)}-{recorder.trials[trial_id(trial)].attempt + 1}"
                ),
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=storage,
                verbose=0,
                callbacks=[collector, capacity],
                stop=stopper,
                # Without a limit: the collector counts.
                failure_config=tune.FailureConfig(max_failures=-1),
                checkpoint_config=tune.CheckpointConfig(
                    # The previous checkpoint stays until the recorder knows of the new one.
                    num_to_keep=2,
                    checkpoint_score_attribute=(
                        SCORE if recorder.experiment.selection_metric else None
                    ),
                    checkpoint_score_order="max",
                ),
            ),
        )
        try:
            tuner.fit()
        except Exception:
            # Tune hides an exception of its callbacks in the text of another one.
            if recorder.folder.failure is not None:
                raise recorder.folder.failure from None
            raise


@contextlib.contextmanager
def _tune_storage(recorder: Recorder, saves: bool) -> Iterator[tuple[str, str]]:
    """Tune's storage: the run folder for trials that save checkpoints, else a temporary folder."""
    if not saves:
        with tempfile.TemporaryDirectory(prefix="modicum-tune-") as aside:
            yield aside, "tune"
        return
    try:
        yield recorder.folder.uri, CHECKPOINTS
    finally:
        _drop_tune_state(recorder)


def _drop_tune_state(recorder: Recorder) -> None:
    """Delete Tune's own bookkeeping, which is pickled and never read again here."""
    from pyarrow import fs

    folder = recorder.folder
    selector = fs.FileSelector(folder.path(CHECKPOINTS), allow_not_found=True)
    for info in folder.filesystem.get_file_info(selector):
        if info.type == fs.FileType.File:
            folder.remove(CHECKPOINTS, info.base_name)
