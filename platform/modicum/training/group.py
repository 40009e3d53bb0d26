"""Running one computation on the workers that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from modicum.experiment.journal import Journal
from modicum.experiment.trial import Trial
from modicum.training.settings import TrainingSettings
from modicum.training.worker import Worker

Computation = Callable[[Worker, Any], Iterator[Any]]


def run_on_workers(
    computation: Computation, arguments: Any, settings: TrainingSettings, trial: Trial
) -> Iterator[Any]:
    """Run a computation on all workers, and yield what the first one yields.

    A computation that starts again, because a worker or the trial's own process died, yields from
    the beginning; its journal tells it what is done. What had been yielded before is left out here
    where this process is still the same.

    Args:
        computation: A function of a module, called with a `Worker` and the arguments.
        arguments: Anything that can be pickled.
        settings: How many workers, and on what.
        trial: The trial that asks.

    Raises:
        InputError: There are not as many processors or GPUs, or the computation raised one.
    """
    if settings.workers == 0:
        yield from _in_this_process(computation, arguments, trial)
        return
    from modicum.training.ray_group import run_on_ray

    yield from run_on_ray(computation, arguments, settings, trial)


def journal_of(trial: Trial) -> str:
    """Where a trial's journal lies."""
    return trial.storage or str(trial.scratch / "journal")


def _in_this_process(computation: Computation, arguments: Any, trial: Trial) -> Iterator[Any]:
    import torch

    scratch: Path = trial.scratch / "worker"
    scratch.mkdir()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    worker = Worker(
        rank=0, size=1, device=device, journal=Journal(journal_of(trial)), scratch=scratch,
        log=trial.log,
    )  # fmt: skip
    yield from computation(worker, arguments)
