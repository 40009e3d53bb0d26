"""Trials on Ray Tune's function API, with actors that are reused from trial to trial."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from ray import tune

from modicum.execution.recorder import Recorder
from modicum.execution.tune.collector import Collector
from modicum.execution.tune.searchers import ListedTrials, SeededSearch
from modicum.execution.tune.seed_means import SeedMeans
from modicum.execution.tune.shared_folder import require_shared_folder
from modicum.execution.tune.stopping import StoppingScheduler, StudyStopper
from modicum.execution.tune.trainable import SCORE, make_trainable, trial_id
from modicum.experiment.resources import require_fit
from modicum.library_logging import quiet_loggers
from modicum.planning.search import SearchPlan
from modicum.ray_support.connection import node_resources
from modicum.run_folder.stop_requests import StopRequests
from modicum.run_folder.trial_record import CHECKPOINTS

if TYPE_CHECKING:
    from ray.tune.schedulers import TrialScheduler

# A trial whose process died (a node lost, out of memory) is started again this often.
# An exception raised by the experiment is final at once.
RESTARTS = 2


def run_on_tune(
    recorder: Recorder,
    requests: StopRequests,
    *,
    search: SearchPlan | None = None,
    scheduler: TrialScheduler | None = None,
    max_concurrent: int | None = None,
) -> None:
    """Run a recorder's unfinished trials, or those that a search suggests, on Ray.

    Must be called inside `modicum.ray_support.connection.connected`.

    Args:
        recorder: Holds the trials and takes their messages; its experiment is pickled.
        requests: Trials to stop.
        search: Suggests trials one by one; None runs the recorder's.
        scheduler: Stops trials early.
        max_concurrent: Largest number of trials at once; None for as many as fit.

    Raises:
        InputError: One trial needs more than the cluster has, or checkpoints would be written
            where some node does not see the run folder.
        StorageError: The run folder cannot be written any more.
        KeyboardInterrupt: The run was interrupted; the folder keeps what had finished.
    """
    experiment = recorder.experiment
    plans = recorder.unfinished() if search is None else search.examples
    nodes = node_resources()
    needs = {experiment.resources(plan.config) for plan in plans}
    most = min(require_fit(nodes, need) for need in needs)
    most = min(most, max_concurrent or most)
    saves = any(experiment.saves_checkpoints(plan.config) for plan in plans)
    if saves:
        require_shared_folder(recorder.folder)
    seeded = None if search is None else SeededSearch(recorder, search)
    collector = Collector(recorder, seeded, requests)
    if scheduler is not None and len({p.seed for p in (*plans, *recorder.plans.values())}) > 1:
        scheduler = SeedMeans(scheduler, recorder)
    fit = partial(
        _fit,
        recorder,
        collector,
        StoppingScheduler(scheduler, requests),
        StudyStopper(requests),
        most=most,
        saves=saves,
    )
    fit(seeded or ListedTrials(experiment, plans))
    for _ in range(RESTARTS):
        skipped = collector.take_skipped()
        if not skipped or requests.study or recorder.count("running"):
            break
        fit(ListedTrials(experiment, skipped))
    collector.give_up()
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
    source: ListedTrials | SeededSearch,
    *,
    most: int,
    saves: bool,
) -> None:
    """Run the trials of a source, `most` of them at once."""
    # Tune remarks on the log files that it was told not to write.
    quiet = quiet_loggers("ray.tune", "ray.tune.analysis", level=logging.CRITICAL)
    with _tune_storage(recorder, saves) as (storage, name), quiet:
        tuner = tune.Tuner(
            make_trainable(recorder),
            tune_config=tune.TuneConfig(
                search_alg=source,
                num_samples=source.remaining,
                scheduler=scheduler,
                reuse_actors=recorder.experiment.isolation == "reused",
                max_concurrent_trials=most,
                trial_name_creator=lambda trial: trial_id(trial),
                trial_dirname_creator=lambda trial: (
                    f"{trial_id(trial)}-{recorder.trials[trial_id(trial)].attempt + 1}"
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
