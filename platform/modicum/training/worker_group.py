"""Running a computation on the group of workers that the settings ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modicum.experiment.journal import Journal
from modicum.experiment.resources import Resources, require_fit
from modicum.experiment.trial import Trial
from modicum.ray_support.connection import ensure_connected, node_resources
from modicum.training.settings import TrainingSettings
from modicum.training.worker import Computation, Worker


def run_on_workers(
    computation: Computation, arguments: Any, settings: TrainingSettings, trial: Trial
) -> Iterator[Any]:
    """Run a computation on all workers, and yield the values that the first worker yields.

    When a worker or the trial's process dies, the computation starts again and yields from the
    beginning; its journal has the results of finished steps. As long as the trial's process is the
    same, values that were yielded before are skipped.

    Args:
        computation: A module's function that takes a `Worker` and the arguments.
        arguments: Any object that can be pickled.
        settings: Number of workers and their resources; 0 workers run it in this process.
        trial: The trial that is running.

    Raises:
        InputError: The workers do not fit on the cluster, or the computation raised one.
    """
    if settings.workers == 0:
        yield from _run_in_this_process(computation, arguments, trial)
        return
    from modicum.training.ray_train.launch import run_on_ray  # Loads Ray.

    yield from run_on_ray(computation, arguments, settings, trial, journal_of(trial))


def require_room(resources: Resources) -> None:
    """Refuse resources of a trial that the cluster does not have; connects to Ray.

    The resources include those of the trial's workers and actor pools.

    Raises:
        InputError: The resources do not fit on the cluster.
    """
    ensure_connected()
    require_fit(node_resources(), resources)


def journal_of(trial: Trial) -> str:
    """Location of a trial's journal."""
    return trial.storage or str(trial.scratch / "journal")


def _run_in_this_process(computation: Computation, arguments: Any, trial: Trial) -> Iterator[Any]:
    import torch  # The process of a trial with workers does not need it.

    scratch = trial.scratch / "worker"
    scratch.mkdir()
    worker = Worker(
        rank=0,
        size=1,
        device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
        journal=Journal(journal_of(trial)),
        scratch=scratch,
        log=trial.log,
    )
    yield from computation(worker, arguments)
