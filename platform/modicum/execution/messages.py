"""Messages from a running trial to the driver."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from modicum.experiment.metric import Value

if TYPE_CHECKING:
    import numpy as np


@dataclass
class RecordMessage:
    """A record of a trial.

    Attributes:
        index: Position among the trial's records, from 0.
        budget: Budget spent so far.
        metrics: Values by metric name.
        seconds: Wall-clock seconds since the trial's (re)start.
        log: The trial's output since the last message, unless the trial writes its log file itself.
        left: Changes of the process that a later trial there could notice.
        checkpoint: Folder on the trial's machine, to be copied before the trial goes on.
        outcomes: Outcome of each test row, by metric name.
    """

    index: int
    budget: float
    metrics: dict[str, Value]
    seconds: float
    log: bytes = b""
    left: tuple[str, ...] = ()
    checkpoint: Path | None = None
    outcomes: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class EndMessage:
    """The last message of a trial.

    Attributes:
        status: `finished`, or `failed` when the experiment raised an exception.
        log: The trial's output since the last message, unless the trial writes its log file itself.
        left: Changes of the process that a later trial there could notice.
        error: One line that names the exception; empty if finished.
        traceback: The whole traceback; empty if finished.
    """

    status: Literal["finished", "failed"]
    log: bytes = b""
    left: tuple[str, ...] = ()
    error: str = ""
    traceback: str = ""
