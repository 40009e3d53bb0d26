"""The worker group of Ray Train, and the loop that each of its workers runs."""

from __future__ import annotations

import logging
import pickle
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from logging.handlers import QueueHandler
from pathlib import Path
from typing import Any

import ray
import torch
from ray import cloudpickle as _cloudpickle
from ray import train as _train
from ray.train.torch import TorchConfig, get_device
from threadpoolctl import threadpool_limits
from torch import distributed

from modicum.experiment.journal import Journal
from modicum.ray_support.private_api import torch_trainer
from modicum.training.ray_train.messages import WorkerFailure, WorkerTask
from modicum.training.worker import Collectives, Worker

cloudpickle: Any = _cloudpickle  # Ray's annotations have gaps.
train: Any = _train  # Annotated as Ray Train v1, which it is not.

# Interval at which a group with fewer workers than `training.workers` looks for free resources.
_RESIZE_SECONDS = 300.0


def run_trainer(task: WorkerTask, host: Any, guard: Any) -> None:
    """Run a worker group to its end, in the process of the `GroupHost`.

    Raises:
        Exception: Ray Train's own, when the group failed more often than it may restart.
    """
    settings = task.settings
    resources = {"CPU": settings.cpus_per_worker}
    if settings.gpus_per_worker:
        resources["GPU"] = settings.gpus_per_worker
    trainer_class = torch_trainer(lambda controller: ray.get(guard.follow.remote(controller)))
    with tempfile.TemporaryDirectory(prefix="modicum-train-") as storage:
        trainer_class(
            worker_loop,
            train_loop_config={"task": task, "host": host},
            torch_config=TorchConfig(timeout_s=round(settings.collective_timeout)),
            scaling_config=train.ScalingConfig(
                num_workers=settings.workers
                if settings.workers_at_least is None
                else (settings.workers_at_least, settings.workers),
                use_gpu=settings.gpus_per_worker > 0,
                resources_per_worker=resources,
                elastic_resize_monitor_interval_s=_RESIZE_SECONDS,
            ),
            run_config=train.RunConfig(
                name="group",
                storage_path=storage,  # State is kept in the journal; Ray Train writes nothing.
                failure_config=train.FailureConfig(max_failures=settings.restarts),
                logging_config=train.LoggingConfig(log_level="ERROR"),
            ),
        ).fit()


def worker_loop(config: dict[str, Any]) -> None:
    """Run the computation, and send the first worker's values, and every exception, to the host."""
    task: WorkerTask = config["task"]
    host = config["host"]
    rank = train.get_context().get_world_rank()
    if rank == 0:
        ray.get(host.group_started.remote())
    yields = 0
    try:
        computation, arguments = pickle.loads(task.computation)
        with _worker(task, host) as worker:
            for value in computation(worker, arguments):
                if worker.first:
                    ray.get(host.put_value.remote(yields, cloudpickle.dumps(value)))
                yields += 1
    except Exception as error:
        # torch raises a RuntimeError in the workers whose peer died; others are the computation's.
        final = not isinstance(error, RuntimeError)
        failure = WorkerFailure(rank, yields, _pickled(error), final)
        ray.get(host.report_failure.remote(failure))
        raise


@contextmanager
def _worker(task: WorkerTask, host: Any) -> Iterator[Worker]:
    context = train.get_context()
    rank = context.get_world_rank()
    threads = max(1, round(task.settings.cpus_per_worker))
    torch.set_num_threads(threads)
    # In the trial's scratch folder, on its machine, so that it is removed even if this is killed.
    parent = task.scratch if Path(task.scratch).is_dir() else None
    with (
        tempfile.TemporaryDirectory(
            prefix="modicum-worker-", dir=parent, ignore_cleanup_errors=True
        ) as scratch,
        threadpool_limits(limits=threads),
    ):
        yield Worker(
            rank=rank,
            size=context.get_world_size(),
            device=torch.device(get_device()),
            journal=Journal(task.journal),
            scratch=Path(scratch),
            collectives=_GlooCollectives(task.settings.collective_timeout),
            log=_logger(rank, host),
        )


class _GlooCollectives(Collectives):
    """Collectives on the CPUs, in a process group beside the model's own."""

    def __init__(self, timeout: float) -> None:
        self._group = distributed.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
        self._size = distributed.get_world_size()

    def broadcast(self, value: Any) -> Any:
        values = [value]
        distributed.broadcast_object_list(values, src=0, group=self._group)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self._size
        distributed.all_gather_object(values, value, group=self._group)
        return values


class _HostHandler(QueueHandler):
    """Sends log records to the host, in a form that can be pickled."""

    def enqueue(self, record: logging.LogRecord) -> None:
        host: Any = self.queue
        host.log.remote(record)


def _logger(rank: int, host: Any) -> logging.Logger:
    """Logger of a worker: everything from the first, warnings from the others."""
    logger = logging.Logger("modicum.trial", logging.NOTSET if rank == 0 else logging.WARNING)
    logger.addHandler(_HostHandler(host))
    return logger


def _pickled(error: Exception) -> bytes:
    """Pickle an exception with its traceback as a note; replace it if it cannot be pickled."""
    note = "On a worker:\n" + traceback.format_exc()
    error.add_note(note)
    try:
        pickled: bytes = cloudpickle.dumps(error)
        pickle.loads(pickled)
    except Exception:
        replacement = RuntimeError(f"{type(error).__name__}: {error}")
        replacement.add_note(note)
        return pickle.dumps(replacement)
    return pickled
