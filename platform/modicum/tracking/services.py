"""MLflow and Weights & Biases, through Ray's own integrations.

Ray's callbacks expect Tune's trials and results. Those of this platform carry its messages, so
the callbacks are given what a person would log: settings and seed, metrics, and a step.
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
class _Logged:
    """What Ray's callbacks ask of a trial of Tune's."""

    trial_id: str
    name: str
    config: dict[str, Value]
    experiment_dir_name: str
    local_path: str

    def __str__(self) -> str:
        return self.name


class Service:
    """A tracker that drives one of Ray's logger callbacks.

    A service that fails while the study runs is left alone from then on, with a warning: the
    run folder has everything, and no trial may be lost for its sake.

    Args:
        name: The service, for the warning.
        callback: Ray's callback, set up.
        study: The study's name.
        place: A folder on this machine for what the service keeps.
        prefix: Tells the trials of this run folder from those of others.
    """

    def __init__(
        self, name: str, callback: LoggerCallback, study: str, place: str, prefix: str
    ) -> None:
        self._name = name
        self._callback = callback
        self._study = study
        self._place = place
        self._prefix = prefix
        self._running: dict[str, _Logged] = {}
        self._failed = False

    def start(self, trial: TrialRecord) -> None:
        """Begin a run of the service's own for a trial; an earlier one ends as failed."""
        self._abandon(trial.id)
        logged = _Logged(
            trial_id=f"{self._prefix}-{trial.id}",
            name=trial.id,
            config=settings_of_trial(trial),
            experiment_dir_name=self._study,
            local_path=self._place,
        )
        self._running[trial.id] = logged
        self._attempt(self._callback.log_trial_start, logged)

    def log(self, trial: TrialRecord, index: int, step: int) -> None:
        """Log a record; the callbacks call its step `training_iteration`."""
        result = {**metrics_of(trial.rows[index]), TRAINING_ITERATION: step}
        self._attempt(self._callback.log_trial_result, step, self._running[trial.id], result)

    def flush(self, trial: TrialRecord) -> None:
        """Nothing: records are sent as they come."""

    def end(self, trial: TrialRecord) -> None:
        """Complete a trial's run."""
        logged = self._running.pop(trial.id)
        self._attempt(self._callback.log_trial_end, logged, trial.status == "failed")

    def reuse(self, trial: TrialRecord) -> None:
        """Nothing: the run that computed the trial has logged it."""

    def close(self) -> None:
        """End the runs of interrupted trials, and wait for uploads."""
        for trial_id in list(self._running):
            self._abandon(trial_id)
        self._attempt(self._callback.on_experiment_end, [])

    def _abandon(self, trial_id: str) -> None:
        logged = self._running.pop(trial_id, None)
        if logged is not None:
            self._attempt(self._callback.log_trial_end, logged, True)

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
    """Logs in MLflow.

    Args:
        options: As the study has them.
        study: Its name.
        folder: Its run folder.
    """
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    given = options.model_dump(exclude_none=True)
    given.setdefault("experiment_name", study)
    with quiet_loggers("mlflow"):
        callback: Any = MLflowLoggerCallback(**given)
        callback.setup()
    return Service("mlflow", callback, study, folder.uri, _prefix(folder))


def wandb(options: WandbSpec, study: str, folder: StorageFolder) -> Tracker:
    """Logs in Weights & Biases.

    Args:
        options: As the study has them.
        study: Its name.
        folder: Its run folder; the service's own files lie in `wandb` there, or in the working
            directory where the run folder is not on this machine, or where `WANDB_DIR` says.
    """
    given = options.model_dump(exclude_none=True)
    given.setdefault("project", study)
    given.setdefault("group", study)
    callback = wandb_callback(_Actors, **given, settings=_quiet_settings())
    callback.setup()
    place = folder.local or Path.cwd()
    return Service("wandb", callback, study, str(place), _prefix(folder))


class _Actors:
    """Starts Ray's logging actors on the driver's node, with the driver's settings of wandb.

    An actor that dies is not started again, since it would lack them.
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
        # The key among them must not be in the runtime environment, which the job API shows.
        given = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
        actor.take.remote(given)  # Calls of one caller are served in order: before `run`.
        return actor


def _quiet_settings() -> Any:
    import wandb

    return wandb.Settings(silent=True, console="off")


def _prefix(folder: StorageFolder) -> str:
    return hashlib.sha256(folder.uri.encode()).hexdigest()[:6]
