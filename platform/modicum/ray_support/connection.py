"""Connecting to Ray: a private cluster for this run, or one that is already there."""

from __future__ import annotations

import atexit
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from modicum.errors import InputError
from modicum.ray_support.private_api import dashboard_address

# Environment of the driver that trials need on whichever node they run. Never a secret:
# Ray's job API shows a runtime environment to anyone who may ask.
FORWARDED = ("MODICUM_DATA", "MODICUM_CACHE", "MODICUM_LEDGERS")

_PROBE_SECONDS = 10.0

_UNTIL_THE_END = ExitStack()
# Left to the interpreter's own end, it would close when nothing can be imported any more.
atexit.register(_UNTIL_THE_END.close)

_QUIET = {
    # Tune would write a JSON, a CSV and a TensorBoard log per trial; records have a home.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Tune's own snapshots are not used: the run folder knows what is finished.
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    # A trial that failed before its first record has no metric for a searcher to look at.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Tune's own output engine prints a banner even when it is told to be quiet.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Trials keep the working directory they were started in.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


@contextmanager
def connected(address: str | None = None, cpus: int | None = None) -> Iterator[None]:
    """Be connected to Ray for the length of a run.

    Uses the connection that the program already has; else the cluster at `address` or in
    `RAY_ADDRESS` (as inside a Ray job); else starts a private cluster on this machine and
    stops it afterwards. Ray turns token authentication on for clusters that it starts so.

    Args:
        address: `host:port` of a running cluster, or None.
        cpus: CPUs of a private cluster; all of the machine's if None.

    Raises:
        InputError: No cluster answers at the address.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # Relative paths would mean something else in a worker's working directory.
    for name in FORWARDED:
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).expanduser().absolute())
    # In a Ray job, whose environment may have some of them already, Ray would refuse to start.
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")
    import ray

    if ray.is_initialized():
        if address is not None:
            raise InputError("address: this program is already connected to a Ray cluster")
        yield
        return
    target = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        if target == "local":
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        else:
            _probe(target)
            ray.init(
                address=target,
                log_to_driver=False,
                logging_level=logging.ERROR,
                runtime_env={"env_vars": _forwarded()},
            )
    except ConnectionError as error:
        raise InputError(f"address: no Ray cluster answers at {target!r} ({error})") from error
    try:
        yield
    finally:
        ray.shutdown()


def auth_token() -> str | None:
    """Where Ray will find the token of a cluster: a variable's name or a file; None if nowhere."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named).expanduser() if named else Path.home() / ".ray" / "auth_token"
    return str(path) if named or path.is_file() else None


def ensure_connected() -> None:
    """Be connected to Ray from now on: as `connected`, until the program ends."""
    import ray

    if not ray.is_initialized():
        _UNTIL_THE_END.enter_context(connected())


def check_address(address: str) -> tuple[str, int] | None:
    """Host and port of a cluster's address; None for `auto`, which Ray finds by itself.

    Raises:
        InputError: It is not `host:port`.
    """
    place = address.removeprefix("ray://")
    if place == "auto":
        return None
    host, colon, port = place.rpartition(":")
    if not colon or not port.isdigit() or "//" in place:
        raise InputError(
            f"address: expected host:port of the cluster's head (often port 6379), got {address!r}"
        )
    return host, int(port)


def _probe(address: str) -> None:
    """Find out quickly whether anything listens; Ray itself would try for minutes.

    Raises:
        ConnectionError: Nothing listens there.
    """
    place = check_address(address)
    if place is None:
        return
    try:
        socket.create_connection(place, timeout=_PROBE_SECONDS).close()
    except OSError as error:
        raise ConnectionError(str(error)) from error


def _forwarded() -> dict[str, str]:
    names = (*FORWARDED, *_QUIET)
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def node_resources() -> list[Mapping[str, float]]:
    """Resources of every live node of the connected cluster."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def dashboard_links() -> dict[str, str]:
    """Ray's dashboard of the connected cluster by name; empty where it has none."""
    address = dashboard_address()
    return {"Ray's dashboard": f"http://{address}"} if address else {}
