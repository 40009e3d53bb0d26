"""Status of a study's driver, in the run folder's `status.json`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modicum.storage import StorageFolder

STATUS = "status.json"

DriverState = Literal["running", "ended", "stopped", "interrupted"]


class _Published(BaseModel):
    # A newer driver may publish more.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Node(_Published):
    """A node of the cluster.

    Attributes:
        address: Address of the node.
        alive: Whether Ray reaches the node.
        resources: Amount in use and total amount, by resource; memory in bytes.
    """

    address: str
    alive: bool
    resources: dict[str, tuple[float, float]]


class DriverStatus(_Published):
    """Status of a study, as its driver sees it.

    Attributes:
        state: State of the driver; `running` is the last state of a driver that was killed.
        host: Machine of the driver.
        pid: Process id of the driver.
        started: Time of the start, in seconds since 1970.
        updated: Time of this status, in seconds since 1970.
        interval: Seconds until the next status.
        total: Number of trials in all, as far as it is known.
        seconds_left: Estimate of the remaining time.
        nodes: Nodes of the Ray cluster.
        oracles: Costs of each endpoint today, one sentence each.
        links: Pages of other programs by name.
        stopping: Whether the study has been asked to stop.
        taken: Names of the latest requests that were taken.
        notes: Reasons why the latest dropped requests were dropped.
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
    """The last status of the driver; None without a readable `status.json`."""
    try:
        return DriverStatus.model_validate_json(folder.read_bytes(STATUS))
    except (OSError, ValidationError):
        return None
