"""Trials one after the other in this process, without Ray."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from modicum.errors import InputError
from modicum.execution.messages import EndMessage
from modicum.execution.recorder import Recorder
from modicum.execution.run_trial import pin_environment, run_trial
from modicum.experiment.experiment import Experiment
from modicum.run_folder.stop_requests import StopRequests
from modicum.run_folder.trial_logs import LOG
from modicum.run_folder.trial_record import TRIALS
from modicum.storage import StorageFolder


def require_local(experiment: Experiment[Any]) -> None:
    """Refuse experiments that start Ray actors, or want a process for each trial.

    Raises:
        InputError: The experiment needs Ray.
    """
    if experiment.needs_ray:
        raise InputError(
            f"runner: experiment {experiment.name!r} needs Ray and cannot run with "
            "runner='local' (--local); leave it out"
        )
    if experiment.isolation == "process":
        raise InputError(
            f"runner: experiment {experiment.name!r} wants a process for each trial "
            "(isolation = 'process'), but runner='local' (--local) has one for all; leave it out"
        )


def run_local(recorder: Recorder, requests: StopRequests) -> None:
    """Run every unfinished trial of a recorder.

    Args:
        recorder: Holds the trials and takes their messages.
        requests: Trials to stop; a running one stops at its next record.
    """
    experiment = recorder.experiment
    folder = recorder.folder.local
    for plan in recorder.unfinished():
        if requests.study:
            return
        if requests.stops(plan.id):
            recorder.stop(plan.id, by="request")
            continue
        trial = recorder.start(plan.id)
        resources = experiment.resources(plan.config)
        pin_environment(resources.trial.cpus)
        with (
            _local_copy(recorder.folder, trial.checkpoint) as checkpoint,
            closing(
                run_trial(
                    experiment,
                    plan,
                    resources,
                    checkpoint=checkpoint,
                    storage=recorder.storage(plan.id),
                    log_file=folder and folder / TRIALS / plan.id / LOG,
                )
            ) as messages,
        ):
            saved = 0
            for message in messages:
                if isinstance(message, EndMessage):
                    recorder.end(plan.id, message)
                    continue
                recorder.record(plan.id, message)
                if message.checkpoint is not None:
                    _keep(recorder, plan.id, message.checkpoint, saved)
                    saved += 1
                if requests.stops(plan.id):
                    recorder.stop(plan.id, by="request")
                    break


@contextmanager
def _local_copy(folder: StorageFolder, where: str | None) -> Iterator[Path | None]:
    """A checkpoint of the run folder, copied to this machine."""
    if where is None:
        yield None
        return
    from pyarrow import fs

    with tempfile.TemporaryDirectory(prefix="modicum-checkpoint-") as local:
        fs.copy_files(folder.path(where), local, source_filesystem=folder.filesystem)
        yield Path(local)


def _keep(recorder: Recorder, trial_id: str, source: Path, number: int) -> None:
    """Copy a checkpoint into the run folder, in Tune's layout.

    The checkpoint is recorded once its copy is complete, and only then are older ones deleted:
    whenever the process is killed, the recorded checkpoint is complete.
    """
    attempt = recorder.trials[trial_id].attempt
    where = f"checkpoints/{trial_id}-{attempt}/checkpoint_{number:06d}"
    recorder.folder.copy_in(source, where)
    recorder.saved_checkpoint(trial_id, where)
    recorder.prune_checkpoints(trial_id)
