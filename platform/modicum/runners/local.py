"""Trials one after the other in this process, without Ray."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modicum.errors import InputError
from modicum.execution import EndMessage, execute, pin_environment
from modicum.experiment import Experiment
from modicum.folder import RunFolder
from modicum.identity import TrialPlan
from modicum.recorder import Recorder, TrialState


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
    experiment: Experiment[Any],
    recorder: Recorder,
    score_metric: str | None = None,
) -> None:
    """Run every unfinished trial of a recorder.

    Args:
        experiment: What to run.
        recorder: Holds the trials and takes their messages.
        score_metric: Metric by which the best checkpoint is kept beside the last.
    """
    require_local(experiment)
    for plan in recorder.unfinished():
        state = recorder.start(plan.id)
        config = experiment.Config.model_validate(plan.config)
        resources = experiment.resources(config)
        pin_environment(resources.trial.cpus)
        store = _CheckpointStore(recorder.folder, experiment, plan, state, score_metric)
        with _fetched(recorder.folder, state.checkpoint) as checkpoint:
            for message in execute(experiment, plan, resources, checkpoint):
                if isinstance(message, EndMessage):
                    recorder.end(plan.id, message)
                    continue
                recorder.record(plan.id, message)
                if message.checkpoint is not None:
                    recorder.saved_checkpoint(plan.id, store.save(message.checkpoint))


@contextmanager
def _fetched(folder: RunFolder, where: str | None) -> Iterator[Path | None]:
    """A checkpoint as a local folder."""
    if where is None:
        yield None
        return
    from pyarrow import fs

    with tempfile.TemporaryDirectory(prefix="modicum-checkpoint-") as local:
        fs.copy_files(folder.path(where), local, source_filesystem=folder.filesystem)
        yield Path(local)


class _CheckpointStore:
    """Keeps a trial's best and last checkpoints, laid out as Tune lays them out."""

    def __init__(
        self,
        folder: RunFolder,
        experiment: Experiment[Any],
        plan: TrialPlan,
        state: TrialState,
        score_metric: str | None,
    ) -> None:
        self._folder = folder
        self._state = state
        self._metric = score_metric
        goal = experiment.metric(score_metric).goal if score_metric else None
        self._sign = {"max": 1.0, "min": -1.0, None: 0.0}[goal]
        self._place = f"checkpoints/{plan.id}-{state.attempt}"
        self._count = 0
        self._best: tuple[float, str] | None = None
        self._last: str | None = None

    def save(self, source: Path) -> str:
        """Copy a folder; returns its place relative to the run folder."""
        from pyarrow import fs

        where = f"{self._place}/checkpoint_{self._count:06d}"
        self._count += 1
        target = self._folder.path(where)
        self._folder.filesystem.create_dir(target, recursive=True)
        fs.copy_files(str(source), target, destination_filesystem=self._folder.filesystem)
        previous, self._last = self._last, where
        dropped = {previous} - {None}
        value = self._state.value(self._metric) if self._metric else None
        if isinstance(value, int | float):
            score = self._sign * value
            if self._best is None or score > self._best[0]:
                if self._best is not None:
                    dropped.add(self._best[1])
                self._best = (score, where)
        if self._best is not None:
            dropped.discard(self._best[1])
        for old in dropped:
            assert old is not None
            self._folder.filesystem.delete_dir(self._folder.path(old))
        return where
