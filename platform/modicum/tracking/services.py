"""MLflow and Weights & Biases, through Ray's integrations.

Ray's callbacks expect Tune's trials and results, which here carry the platform's messages. They
are given settings and seed, metrics, and a step instead.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.air.constants import TRAINING_ITERATION
from ray.tune.logger import LoggerCallback
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from modicum.errors import reason_of
from modicum.experiment.metric import Value
from modicum.library_logging import quiet_loggers
from modicum.planning.spec import MlflowSpec, WandbSpec
from modicum.ray_support.private_api import wandb_callback
from modicum.run_folder.trial_record import TrialRecord
from modicum.storage import StorageFolder
from modicum.tracking.tracker import Tracker, metrics_of, settings_of_trial


@dataclass(eq=False)
class _Run:
    """A trial of Tune's, as far as Ray's callbacks read it."""

    trial_id: str
    name: str
    config: dict[str, Value]
    experiment_dir_name: str
    local_path: str

    def __str__(self) -> str:
        return self.name


class ServiceTracker(Tracker):
    """A tracker that drives one of Ray's logger callbacks, which send records as they come.

    After a failure of the service the tracker warns once and logs nothing more: the run folder has
    all results, and a service must not cost a trial.

    Args:
        name: Name of the service, for the warning.
        callback: Ray's callback, set up.
        study: Name of the study.
        folder: Run folder; its address makes the runs' ids differ from those of other folders.
        place: Folder for the service's files.
    """

    def __init__(
        self, name: str, callback: LoggerCallback, study: str, folder: StorageFolder, place: str
    ) -> None:
        self._name, self._callback, self._study, self._place = name, callback, study, place
        self._prefix = hashlib.sha256(folder.uri.encode()).hexdigest()[:6]
        self._running: dict[str, _Run] = {}
        self._failed = False

    def start(self, trial: TrialRecord) -> None:
        """Begin a run of the service for a trial; an earlier run of the trial ends as failed."""
        self._end(trial.id)
        run = _Run(
            trial_id=f"{self._prefix}-{trial.id}",
            name=trial.id,
            config=settings_of_trial(trial),
            experiment_dir_name=self._study,
            local_path=self._place,
        )
        self._running[trial.id] = run
        self._attempt(self._callback.log_trial_start, run)

    def log(self, trial: TrialRecord, index: int, step: int) -> None:
        """Log a record; the callbacks call its step `training_iteration`."""
        result = {**metrics_of(trial.rows[index]), TRAINING_ITERATION: step}
        self._attempt(self._callback.log_trial_result, step, self._running[trial.id], result)

    def end(self, trial: TrialRecord) -> None:
        """Complete a trial's run."""
        self._end(trial.id, failed=trial.status == "failed")

    def close(self) -> None:
        """End the runs of interrupted trials, and wait for uploads."""
        for trial_id in list(self._running):
            self._end(trial_id)
        self._attempt(self._callback.on_experiment_end, [])

    def _end(self, trial_id: str, failed: bool = True) -> None:
        run = self._running.pop(trial_id, None)
        if run is not None:
            self._attempt(self._callback.log_trial_end, run, failed)

    def _attempt(self, act: Callable[..., Any], *arguments: Any) -> None:
        if self._failed:
            return
        try:
            act(*arguments)
        except Exception as error:
            self._failed = True
            warnings.warn(
                f"tracking.{self._name}: nothing more is logged there ({reason_of(error)})",
                stacklevel=2,
            )


def mlflow(options: MlflowSpec, study: str, folder: StorageFolder) -> Tracker:
    """A tracker that logs to MLflow, with the options from the study."""
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    given = {"experiment_name": study, **options.model_dump(exclude_none=True)}
    with quiet_loggers("mlflow"):
        callback: Any = MLflowLoggerCallback(**given)
        callback.setup()
    return ServiceTracker("mlflow", callback, study, folder, folder.uri)


def wandb(options: WandbSpec, study: str, folder: StorageFolder) -> Tracker:
    """A tracker that logs to Weights & Biases, with the options from the study.

    The service's files lie in `wandb` in the run folder, in the working directory if the run
    folder is not on this machine, or in `WANDB_DIR` if that is set.
    """
    from wandb import Settings

    given = {"project": study, "group": study, **options.model_dump(exclude_none=True)}
    settings = Settings(silent=True, console="off")
    callback = wandb_callback(_LoggingActors, **given, settings=settings)
    callback.setup()
    return ServiceTracker("wandb", callback, study, folder, str(folder.local or Path.cwd()))


class _LoggingActors:
    """Starts Ray's logging actors on the driver's node, with the driver's `WANDB_` variables.

    An actor that dies is not started again, because it would lack the variables.
    """

    def __init__(self, kind: type) -> None:
        class Logging(kind):  # type: ignore[misc]
            def take(self, environment: dict[str, str]) -> None:
                os.environ.update(environment)

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actors: Any = ray.remote(Logging)
        self._kind = actors.options(num_cpus=0, scheduling_strategy=here)

    def remote(self, **arguments: Any) -> Any:
        actor = self._kind.remote(**arguments)
        # A runtime environment would show the key to anyone who may ask the job API.
        given = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
        actor.take.remote(given)  # Calls of one caller are served in order: before `run`.
        return actor
