"""Trials one after the other in this process, without Ray."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from modicum.errors import InputError
from modicum.execution.messages import EndMessage
from modicum.execution.recorder import Recorder
from modicum.execution.run_trial import execute, pin_environment
from modicum.experiment.experiment import Experiment
from modicum.run_folder.stop_requests import StopRequests
from modicum.storage import StorageFolder


def require_local(experiment: Experiment[Any]) -> None:
    """Refuse experiments that start Ray actors themselves.

    Raises:
        InputError: The experiment needs Ray.
    """
    if experiment.needs_ray:
        raise InputError(
            f"runner: experiment {experiment.name!r} needs Ray and cannot run with "
            "runner='local' (--local); leave it out"
        )


def run_local(
    experiment: Experiment[Any], recorder: Recorder, requests: StopRequests | None = None
) -> None:
    """Run every unfinished trial of a recorder.

    Args:
        experiment: What to run.
        recorder: Holds the trials and takes their messages.
        requests: What has been asked to stop; a running trial stops at its next record.
    """
    require_local(experiment)
    requests = requests or StopRequests()
    for plan in recorder.unfinished():
        if requests.study:
            return
        if requests.stops(plan.id):
            recorder.stop(plan.id, by="request")
            continue
        state = recorder.start(plan.id)
        config = experiment.Config.model_validate(plan.config)
        resources = experiment.resources(config)
        pin_environment(resources.trial.cpus)
        saved = 0
        with ExitStack() as stack:
            checkpoint = stack.enter_context(_fetched(recorder.folder, state.checkpoint))
            storage = recorder.storage(plan.id)
            messages = stack.enter_context(
                closing(execute(experiment, plan, resources, checkpoint, storage=storage))
            )
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
def _fetched(folder: StorageFolder, where: str | None) -> Iterator[Path | None]:
    """A checkpoint as a local folder."""
    if where is None:
        yield None
        return
    from pyarrow import fs

    with tempfile.TemporaryDirectory(prefix="modicum-checkpoint-") as local:
        fs.copy_files(folder.path(where), local, source_filesystem=folder.filesystem)
        yield Path(local)


def _keep(recorder: Recorder, trial_id: str, source: Path, number: int) -> None:
    """Copy a checkpoint into the run folder, laid out as Tune lays them out.

    It is recorded once it is complete, and only then are older ones deleted: whenever the
    process is killed, the recorded checkpoint is whole.
    """
    attempt = recorder.trials[trial_id].attempt
    where = f"checkpoints/{trial_id}-{attempt}/checkpoint_{number:06d}"
    recorder.folder.copy_in(source, where)
    recorder.saved_checkpoint(trial_id, where)
    recorder.prune_checkpoints(trial_id)
