"""Messages between the trial's process, the group host and the workers."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from modicum.training.settings import TrainingSettings


@dataclass(frozen=True)
class WorkerTask:
    """Task of the workers; locations are those of the trial's journal and scratch folder."""

    computation: bytes  # With its arguments, pickled because only the workers need to load them.
    settings: TrainingSettings
    journal: str
    scratch: str


@dataclass(frozen=True)
class Reply:
    """The host's reply to the trial: a pickled value or exception, or neither at the end."""

    log: list[logging.LogRecord]  # Of the workers, since the last reply.
    value: bytes | None = None
    error: bytes | None = None


@dataclass(frozen=True)
class WorkerFailure:
    """A pickled exception that a worker raised."""

    rank: int
    yields: int  # Number of values that the worker had yielded.
    error: bytes
    final: bool  # The group must not start again.
