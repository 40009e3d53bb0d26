"""A computation on a worker group of Ray Train, which stays up from its start to its end.

    the trial's process  -- owns -->  the host  -- runs Ray Train, which owns -->  the workers
            ^--------- values ----------'   ^------- what the first one yields -------'

Each dies with its owner, so no process is left of a trial whose own was killed. The processors that
were reserved for the workers would be left: a guard gives them back.
"""

from __future__ import annotations

import asyncio
import logging
import pickle
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from logging.handlers import QueueHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modicum.errors import InputError
from modicum.experiment.fit import trials_that_fit
from modicum.experiment.journal import Journal
from modicum.experiment.resources import Resources
from modicum.experiment.trial import Trial
from modicum.ray_support.connection import ensure_connected, node_resources
from modicum.ray_support.private_api import (
    actor_is_alive,
    placement_groups_of,
    torch_trainer,
)
from modicum.training.settings import TrainingSettings
from modicum.training.worker import Worker

if TYPE_CHECKING:
    from modicum.training.group import Computation

# How often a group that runs with fewer workers than it might looks for room, seconds.
_ROOM_INTERVAL = 300.0

# A resource that the head node alone has.
_HEAD = "node:__internal_head__"

_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
}


def run_on_ray(
    computation: Computation, arguments: Any, settings: TrainingSettings, trial: Trial
) -> Iterator[Any]:
    """Run a computation on a worker group; see `run_on_workers`.

    A worker that dies makes the group start again, at most `settings.restarts` times; so does a
    `RuntimeError`, which is what torch raises in the others. Other exceptions are final and are
    raised here as they were raised there, with the worker's traceback as a note.

    The computation is resumed only when the next value is asked for, as a generator is.

    Raises:
        InputError: The workers do not fit on the cluster, or the computation raised one.
        RuntimeError: Workers died more often than `settings.restarts` allows.
    """
    import ray
    from ray import cloudpickle
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from modicum.training.group import journal_of

    ensure_connected()
    _check_fit(settings)
    pickled: Any = cloudpickle  # Ray's annotations have gaps.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    host: Any = (
        ray.remote(_Host)  # Placed by node, and so outside a trial's own reservation.
        .options(
            num_cpus=0,
            scheduling_strategy=here,
            runtime_env={"env_vars": _ENVIRONMENT},
        )
        .remote()
    )
    guard: Any = (
        ray.remote(_Guard)
        # Where it outlives the machine of the trial, as Ray's own actors of this kind do.
        .options(
            num_cpus=0,
            lifetime="detached",
            resources={_HEAD: 0.001},
            scheduling_strategy="DEFAULT",
        )
        .remote()
    )
    guard.watch.remote(host)
    task = _Task(
        computation=pickled.dumps((computation, arguments)),
        settings=settings,
        journal=journal_of(trial),
        scratch=str(trial.scratch),
    )
    try:
        ray.get(host.start.remote(task, guard))
        index = 0
        while True:
            news: _News = ray.get(host.take.remote(index))
            for record in news.log:
                trial.log.handle(record)
            if news.error is not None:
                raise pickle.loads(news.error)
            if news.value is None:
                return
            yield pickle.loads(news.value)
            index += 1
    finally:
        ray.kill(host)


@dataclass(frozen=True)
class _Task:
    """What the workers are to do; computation and arguments are pickled for them alone."""

    computation: bytes
    settings: TrainingSettings
    journal: str
    scratch: str


@dataclass(frozen=True)
class _News:
    """A value, or an error, or else the end; and what was logged until then."""

    log: list[logging.LogRecord]
    value: bytes | None = None
    error: bytes | None = None


@dataclass(frozen=True)
class _Failure:
    """An exception that a worker raised, after so many yields."""

    rank: int
    yields: int
    error: bytes
    final: bool


class _Host:
    """An actor that runs Ray Train and passes on what the first worker yields."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._values: dict[int, bytes] = {}
        self._wanted = 0
        self._log: list[logging.LogRecord] = []
        self._failures: list[_Failure] = []
        self._end: _News | None = None

    async def start(self, task: _Task, guard: Any) -> None:
        """Start the workers, and return."""
        import ray

        me = ray.get_runtime_context().current_actor
        self._running = asyncio.create_task(self._run(task, me, guard))

    async def wait(self) -> None:
        """Return never: whoever waits for this learns of the end of this process."""
        await asyncio.Event().wait()

    async def begin(self) -> None:
        """Called by the first worker when a group has come up: others' ends are past."""
        self._failures = [failure for failure in self._failures if failure.final]

    async def put(self, index: int, value: bytes) -> None:
        """Called by the first worker with each value; returns when the one after it is wanted."""
        async with self._changed:
            if index < self._wanted:
                return
            self._values[index] = value
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._wanted > index)

    async def fail(self, failure: _Failure) -> None:
        """Called by a worker that raised; returns never if that is final.

        The worker may be ahead of the first one, which Ray Train would stop as soon as it ends, and
        then start a group again that nobody wants. It ends with this process.
        """
        async with self._changed:
            self._failures.append(failure)
            self._changed.notify_all()
        if failure.final:
            await self.wait()

    async def tell(self, record: logging.LogRecord) -> None:
        """Called by a worker with each line of its log."""
        self._log.append(record)

    async def take(self, index: int) -> _News:
        """Called by the trial for each value; returns when it is there, or never will be."""
        async with self._changed:
            self._wanted = index
            self._values.pop(index - 1, None)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._found(index) is not None)
            log, self._log = self._log, []
            found = self._found(index)
            assert found is not None
            return _News(log, found.value, found.error)

    def _found(self, index: int) -> _News | None:
        if index in self._values:
            return _News([], value=self._values[index])
        for failure in self._failures:
            if failure.final and failure.yields <= index:
                return _News([], error=failure.error)
        return self._end

    async def _run(self, task: _Task, me: Any, guard: Any) -> None:
        try:
            await asyncio.to_thread(_fit, task, me, guard)
            end = _News([])
        except Exception as error:
            end = _News([], error=self._cause(error, task.settings.restarts))
        async with self._changed:
            self._end = end
            self._changed.notify_all()

    def _cause(self, error: Exception, restarts: int) -> bytes:
        """What a worker raised, where that is why Ray Train has given up."""
        ranks = set(getattr(error, "worker_failures", {}))
        died = ranks - {failure.rank for failure in self._failures}
        if ranks and not died:
            return self._failures[0].error
        said = RuntimeError(
            f"the process of worker {min(died)} died; training.restarts allows {restarts} restarts"
            if died
            else "the worker group could not be run"
        )
        said.add_note(f"Ray Train said:\n{error}")
        return pickle.dumps(said)


class _Guard:
    """An actor of its own that gives back what was reserved for the workers when the host is gone.

    Ray Train's own is told of a group when it has come up, and loses one that has not; it also asks
    the dashboard whether its controller lives, and a private cluster has none.
    """

    def __init__(self) -> None:
        self._controller: str | None = None

    async def follow(self, controller: str) -> None:
        """Called by Ray Train's controller, an actor with this id, before it reserves anything."""
        self._controller = controller

    async def watch(self, host: Any) -> None:
        """Wait for the host's end, and end."""
        from ray import actor
        from ray.exceptions import RayActorError
        from ray.util import remove_placement_group

        with suppress(RayActorError):
            await host.wait.remote()
        if self._controller is not None:
            while actor_is_alive(self._controller):
                await asyncio.sleep(0.1)
            for group in placement_groups_of(self._controller):
                remove_placement_group(group)
        actor.exit_actor()  # type: ignore[no-untyped-call]


def _fit(task: _Task, host: Any, guard: Any) -> None:
    """Run Ray Train to its end."""
    import ray
    from ray import train as annotated
    from ray.train.torch import TorchConfig

    train: Any = annotated  # Annotated as Ray Train v1, which it is not.

    settings = task.settings
    resources = {"CPU": settings.cpus_per_worker}
    if settings.gpus_per_worker:
        resources["GPU"] = settings.gpus_per_worker
    with tempfile.TemporaryDirectory(prefix="modicum-train-") as storage:
        torch_trainer(lambda controller: ray.get(guard.follow.remote(controller)))(
            _work,
            train_loop_config={"task": task, "host": host},
            torch_config=TorchConfig(timeout_s=round(settings.collective_timeout)),
            scaling_config=train.ScalingConfig(
                num_workers=settings.workers
                if settings.workers_at_least is None
                else (settings.workers_at_least, settings.workers),
                use_gpu=settings.gpus_per_worker > 0,
                resources_per_worker=resources,
                elastic_resize_monitor_interval_s=_ROOM_INTERVAL,
            ),
            run_config=train.RunConfig(
                name="group",
                storage_path=storage,  # The journal keeps what is kept; Ray Train writes nothing.
                failure_config=train.FailureConfig(max_failures=settings.restarts),
                logging_config=train.LoggingConfig(log_level="ERROR"),
            ),
        ).fit()


def _work(config: dict[str, Any]) -> None:
    """What each worker runs."""
    import ray
    import ray.train
    from ray import cloudpickle

    task: _Task = config["task"]
    host = config["host"]
    pickled: Any = cloudpickle
    rank = ray.train.get_context().get_world_rank()
    if rank == 0:
        ray.get(host.begin.remote())
    yields = 0
    try:
        computation, arguments = pickle.loads(task.computation)
        with _worker(task, host) as worker:
            for value in computation(worker, arguments):
                if worker.first:
                    ray.get(host.put.remote(yields, pickled.dumps(value)))
                yields += 1
    except Exception as error:
        final = not isinstance(error, RuntimeError)
        ray.get(host.fail.remote(_Failure(rank, yields, _pickled(error), final)))
        raise


@contextmanager
def _worker(task: _Task, host: Any) -> Iterator[Worker]:
    import ray.train
    import torch
    from ray.train.torch import get_device
    from threadpoolctl import threadpool_limits

    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    threads = max(1, round(task.settings.cpus_per_worker))
    torch.set_num_threads(threads)
    # Below the trial's folder, on its machine, so that it is removed even where this is killed.
    parent = task.scratch if Path(task.scratch).is_dir() else None
    scratch = Path(tempfile.mkdtemp(prefix="modicum-worker-", dir=parent))
    try:
        with threadpool_limits(limits=threads):
            yield Worker(
                rank=rank,
                size=size,
                device=torch.device(get_device()),
                journal=Journal(task.journal),
                scratch=scratch,
                collectives=_Exchange(task.settings.collective_timeout),
                log=_logger(rank, host),
            )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Exchange:
    """Collectives of a process group; on the processors, whatever the model's own group uses.

    Args:
        timeout: Seconds that workers wait for each other.
    """

    def __init__(self, timeout: float) -> None:
        from datetime import timedelta

        from torch import distributed

        self._group = distributed.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
        self._size = distributed.get_world_size()

    def broadcast(self, value: Any) -> Any:
        """See `Collectives`."""
        from torch import distributed

        values = [value]
        distributed.broadcast_object_list(values, src=0, group=self._group)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        """See `Collectives`."""
        from torch import distributed

        values: list[Any] = [None] * self._size
        distributed.all_gather_object(values, value, group=self._group)
        return values


class _ToHost(QueueHandler):
    """Passes log records to the host, in a form that can be pickled."""

    def enqueue(self, record: logging.LogRecord) -> None:
        host: Any = self.queue
        host.tell.remote(record)


def _logger(rank: int, host: Any) -> logging.Logger:
    """Of the first worker all, of the others warnings."""
    logger = logging.Logger("modicum.trial", logging.NOTSET if rank == 0 else logging.WARNING)
    logger.addHandler(_ToHost(host))
    return logger


def _pickled(error: Exception) -> bytes:
    """An exception with its traceback as a note; where it cannot travel, one that says the same."""
    from ray import cloudpickle

    pickled: Any = cloudpickle
    error.add_note("On a worker:\n" + traceback.format_exc())
    try:
        found: bytes = pickled.dumps(error)
        pickle.loads(found)
    except Exception:
        plain = RuntimeError(f"{type(error).__name__}: {error}")
        plain.add_note("On a worker:\n" + traceback.format_exc())
        return pickle.dumps(plain)
    return found


def _check_fit(settings: TrainingSettings) -> None:
    """Refuse what Ray would wait for, for ever and without a word.

    Raises:
        InputError: Not as many workers fit on the cluster as there must be.
    """
    import ray

    fewest = settings.workers_at_least or settings.workers
    nodes = node_resources()
    needs = settings.resources
    # A trial that is an actor of Ray's takes a little itself.
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
