"""Messages between the trial's process, the group host and the workers."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from modicum.training.settings import TrainingSettings


@dataclass(frozen=True)
class WorkerTask:
    """Task of the workers.

    Attributes:
        computation: Computation and arguments, pickled because only the workers need to load them.
        settings: Settings of training.
        journal: Location of the trial's journal.
        scratch: The trial's scratch folder.
    """

    computation: bytes
    settings: TrainingSettings
    journal: str
    scratch: str


@dataclass(frozen=True)
class Reply:
    """The host's reply to the trial: a value, an error, or neither at the end.

    Attributes:
        log: Log records of the workers since the last reply.
        value: Pickled value of the first worker.
        error: Pickled exception.
    """

    log: list[logging.LogRecord]
    value: bytes | None = None
    error: bytes | None = None


@dataclass(frozen=True)
class WorkerFailure:
    """An exception that a worker raised.

    Attributes:
        rank: Rank of the worker.
        yields: Number of values that the worker had yielded.
        error: Pickled exception.
        final: True if the group must not start again.
    """

    rank: int
    yields: int
    error: bytes
    final: bool
