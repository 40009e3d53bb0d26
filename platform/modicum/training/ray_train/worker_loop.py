"""The loop that every worker of a group runs."""

from __future__ import annotations

import logging
import pickle
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from logging.handlers import QueueHandler
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray import cloudpickle as _cloudpickle
from ray.train.torch import get_device
from threadpoolctl import threadpool_limits
from torch import distributed

from modicum.experiment.journal import Journal
from modicum.training.ray_train.messages import WorkerFailure, WorkerTask
from modicum.training.worker import Worker

cloudpickle: Any = _cloudpickle  # Ray's annotations have gaps.


def worker_loop(config: dict[str, Any]) -> None:
    """Run the computation, and send the first worker's values, and every exception, to the host.

    Args:
        config: The `WorkerTask` under `task`, and the actor handle of the `GroupHost` under `host`.
    """
    task: WorkerTask = config["task"]
    host = config["host"]
    rank = ray.train.get_context().get_world_rank()
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
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    threads = max(1, round(task.settings.cpus_per_worker))
    torch.set_num_threads(threads)
    # In the trial's scratch folder, on its machine, so that it is removed even if this is killed.
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
                collectives=_GlooCollectives(task.settings.collective_timeout),
                log=_logger(rank, host),
            )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _GlooCollectives:
    """Collectives on the CPUs, in a process group beside the model's own.

    Args:
        timeout: Seconds that workers wait for each other.
    """

    def __init__(self, timeout: float) -> None:
        self._group = distributed.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
        self._size = distributed.get_world_size()

    def broadcast(self, value: Any) -> Any:
        """See `Collectives`."""
        values = [value]
        distributed.broadcast_object_list(values, src=0, group=self._group)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        """See `Collectives`."""
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
