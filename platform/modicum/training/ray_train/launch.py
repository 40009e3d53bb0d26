"""Starting a worker group from the trial's process, and receiving its values."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import ray
from ray import cloudpickle as _cloudpickle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from modicum.errors import InputError
from modicum.experiment.resources import Resources, trials_that_fit
from modicum.experiment.trial import Trial
from modicum.ray_support.connection import ensure_connected, node_resources
from modicum.training.ray_train.group_host import GroupHost, PlacementGuard
from modicum.training.ray_train.messages import Reply, WorkerTask
from modicum.training.settings import TrainingSettings
from modicum.training.worker import Computation

cloudpickle: Any = _cloudpickle  # Ray's annotations have gaps.

# A resource that only the head node has.
_HEAD = "node:__internal_head__"

_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
}


def run_on_ray(
    computation: Computation, arguments: Any, settings: TrainingSettings, trial: Trial, journal: str
) -> Iterator[Any]:
    """Run a computation on a worker group; see `run_on_workers`.

    The death of a worker restarts the group, at most `settings.restarts` times; so does a
    `RuntimeError`, which torch raises in the other workers. Any other exception is final, and is
    raised here with the worker's traceback as a note.

    The computation continues only when the next value is asked for, as a generator does.

    Raises:
        InputError: The workers do not fit on the cluster, or the computation raised one.
        RuntimeError: Workers died more often than `settings.restarts` allows.
    """
    ensure_connected()
    _require_fit(settings)
    task = WorkerTask(
        computation=cloudpickle.dumps((computation, arguments)),
        settings=settings,
        journal=journal,
        scratch=str(trial.scratch),
    )
    host = _start_host()
    guard = _start_guard()
    guard.watch.remote(host)
    try:
        ray.get(host.start.remote(task, guard))
        index = 0
        while True:
            reply: Reply = ray.get(host.next_reply.remote(index))
            for record in reply.log:
                trial.log.handle(record)
            if reply.error is not None:
                raise pickle.loads(reply.error)
            if reply.value is None:
                return
            yield pickle.loads(reply.value)
            index += 1
    finally:
        ray.kill(host)


def _start_host() -> Any:
    """Start the host on this node; placed by node, it is outside the trial's own reservation."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(GroupHost)
    return actor.options(
        num_cpus=0, scheduling_strategy=here, runtime_env={"env_vars": _ENVIRONMENT}
    ).remote()


def _start_guard() -> Any:
    """Start the guard on the head node, where it outlives the trial's node."""
    actor: Any = ray.remote(PlacementGuard)
    return actor.options(
        num_cpus=0,
        lifetime="detached",
        resources={_HEAD: 0.001},
        scheduling_strategy="DEFAULT",
    ).remote()


def _require_fit(settings: TrainingSettings) -> None:
    """Refuse a group that does not fit on the cluster; Ray would wait for ever without a message.

    Raises:
        InputError: The smallest number of workers does not fit.
    """
    fewest = settings.workers_at_least or settings.workers
    nodes = node_resources()
    needs = settings.resources
    # A trial that is an actor takes some CPU itself.
    in_actor = ray.get_runtime_context().get_actor_id() is not None
    one = needs.nested[0]
    bundles = (*((needs.trial,) if in_actor else ()), *(one,) * fewest)
    if trials_that_fit(nodes, Resources(trial=bundles[0], nested=bundles[1:])):
        return
    gpus = f" and {one.gpus:g} GPUs" if one.gpus else ""
    has = "; ".join(f"{n.get('CPU', 0):g} CPUs, {n.get('GPU', 0):g} GPUs" for n in nodes)
    raise InputError(
        f"training.workers: {fewest} workers with {one.cpus:g} CPUs{gpus} each (training."
        f"cpus_per_worker, training.gpus_per_worker) and {0.01 if in_actor else 0:g} CPUs for the "
        f"trial do not fit on the cluster, which has per node: {has}"
    )
