"""What the driver of a running study says of itself in the run folder's `status.json`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modicum.storage import StorageFolder

STATUS = "status.json"

DriverState = Literal["running", "ended", "stopped", "interrupted"]


class _Stated(BaseModel):
    # A newer driver may say more.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Node(_Stated):
    """A node of the cluster.

    Attributes:
        address: Of the node.
        alive: Whether Ray reaches it.
        resources: What is in use and what there is, by resource; memory in bytes.
    """

    address: str
    alive: bool
    resources: dict[str, tuple[float, float]]


class DriverStatus(_Stated):
    """How a study stands, as its driver sees it.

    Attributes:
        state: What the driver does; one that was killed has said `running` last.
        host: Machine of the driver.
        pid: The driver's process.
        started: When it began, in seconds since 1970.
        updated: When it said this.
        interval: Seconds until it says something again.
        total: Trials that there will be, as far as it is known.
        seconds_left: Its estimate.
        nodes: Of the Ray cluster.
        oracles: What endpoints have cost today, a sentence each.
        links: Pages of other programs by name.
        stopping: Whether the study has been asked to stop.
        taken: Requests that were taken lately.
        notes: What was wrong with requests that were dropped.
    """

    state: DriverState
    host: str
    pid: int
    started: float
    updated: float
    interval: float
    total: int = Field(ge=0)
    seconds_left: float | None
    nodes: list[Node]
    oracles: list[str]
    links: dict[str, str]
    stopping: bool
    taken: list[str]
    notes: list[str]


def read_status(folder: StorageFolder) -> DriverStatus | None:
    """What the driver last said of itself; None where there is nothing that can be read."""
    try:
        return DriverStatus.model_validate_json(folder.read_bytes(STATUS))
    except (OSError, ValidationError):
        return None
