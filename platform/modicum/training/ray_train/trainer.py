"""Ray Train's trainer, set up for a worker group."""

from __future__ import annotations

import tempfile
from typing import Any

import ray
from ray import train as _train
from ray.train.torch import TorchConfig

from modicum.ray_support.private_api import torch_trainer
from modicum.training.ray_train.messages import WorkerTask
from modicum.training.ray_train.worker_loop import worker_loop

train: Any = _train  # Annotated as Ray Train v1, which it is not.

# Interval at which a group with fewer workers than `training.workers` looks for free resources.
_RESIZE_SECONDS = 300.0


def run_trainer(task: WorkerTask, host: Any, guard: Any) -> None:
    """Run a worker group to its end.

    Args:
        task: Task of the workers.
        host: Actor handle of the `GroupHost`.
        guard: Actor handle of the `PlacementGuard`.

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
