"""Connections to Ray: to a private cluster of this run, or to a running one."""

from __future__ import annotations

import atexit
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from modicum.errors import InputError, reason_of, unknown_name
from modicum.ray_support.private_api import dashboard_address

# Variables of the driver's environment that trials need on any node. Never a secret: Ray's job API
# shows a runtime environment to everybody who may ask.
FORWARDED = ("MODICUM_DATA", "MODICUM_CACHE", "MODICUM_LEDGERS")

_PROBE_SECONDS = 10.0

_UNTIL_THE_END = ExitStack()
# At the interpreter's end it would close too late, when nothing can be imported any more.
atexit.register(_UNTIL_THE_END.close)

_QUIET = {
    # Tune would log every trial as JSON, CSV and TensorBoard; the run folder has the records.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Snapshots of Tune are not used: the run folder has the state of each trial.
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    # A trial that failed before its first record has no metric for a searcher.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # As many trials wait for their resources as the study's own limit allows; Tune's own is fixed
    # when it starts.
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",
    # Tune's new output engine prints a banner at any verbosity.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Trials keep the working directory in which they were started.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


@contextmanager
def connected(address: str | None = None, cpus: int | None = None) -> Iterator[None]:
    """Connect to Ray for a block.

    Uses an existing connection of the program, else the cluster at `address` or `RAY_ADDRESS` (as
    in a Ray job). Else it starts a private cluster on this machine, with token authentication, and
    stops it afterwards.

    Args:
        address: `host:port` of a running cluster, or None.
        cpus: Number of CPUs of a private cluster; None for all of the machine's.

    Raises:
        InputError: No cluster answers at the address, or an address is given although the program
            is connected already.
    """
    _set_environment()
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
                runtime_env={"env_vars": forwarded_variables()},
            )
    except ConnectionError as error:
        raise InputError(f"address: no Ray cluster answers at {target!r} ({error})") from error
    try:
        yield
    finally:
        ray.shutdown()


def _set_environment() -> None:
    """Set the variables that Ray reads when it starts, and make forwarded paths absolute."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    # A worker's working directory is another one, so paths must be absolute.
    for name in FORWARDED:
        if os.environ.get(name):
            os.environ[name] = str(Path(os.environ[name]).expanduser().absolute())
    # Without it, Ray refuses variables that a Ray job's runtime environment has, too.
    os.environ.setdefault("RAY_OVERRIDE_JOB_RUNTIME_ENV", "1")


def auth_token() -> str | None:
    """Variable or file from which Ray will read the cluster's token; None if there is neither."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named).expanduser() if named else Path.home() / ".ray" / "auth_token"
    return str(path) if named or path.is_file() else None


def ensure_connected() -> None:
    """Connect to Ray as `connected` does, until the program ends."""
    import ray

    if not ray.is_initialized():
        _UNTIL_THE_END.enter_context(connected())


def check_address(address: str) -> tuple[str, int] | None:
    """Parse a cluster's address into host and port; None for `auto`, which Ray resolves.

    Raises:
        InputError: The address is not `host:port`.
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
    """Try to connect; Ray itself would try for minutes.

    Raises:
        ConnectionError: Nothing listens at the address.
    """
    place = check_address(address)
    if place is None:
        return
    try:
        socket.create_connection(place, timeout=_PROBE_SECONDS).close()
    except OSError as error:
        raise ConnectionError(str(error)) from error


def forwarded_variables() -> dict[str, str]:
    """The driver's variables that its actors need on any node."""
    names = (*FORWARDED, *_QUIET)
    return {name: os.environ[name] for name in names if os.environ.get(name)}


def check_runtime_env(fields: Mapping[str, Any]) -> None:
    """Check a runtime environment for actors as far as Ray does without a cluster.

    Raises:
        InputError: A field is unknown, or has an impossible value.
    """
    from ray.runtime_env import RuntimeEnv

    known: set[str] = RuntimeEnv.known_fields
    for name in fields.keys() - known:
        raise InputError(f"runtime_env: {unknown_name('field', name, known)}")
    for name in ("working_dir", "py_modules"):
        places = fields.get(name) or []
        for place in places if isinstance(places, list | tuple) else [places]:
            if "://" not in str(place):
                raise InputError(
                    f"runtime_env.{name}: Ray takes folders for whole jobs only, and `modicum "
                    f"submit` packs one; give a URI here, got {str(place)!r}"
                )
    try:
        RuntimeEnv(**fields)
    except (TypeError, ValueError) as error:
        raise InputError(f"runtime_env: {reason_of(error)}") from error
    for name, content in (fields.get("env_vars") or {}).items():
        if not name or "=" in name or "\0" in name + content:
            raise InputError(
                f"runtime_env.env_vars: no process can have the variable {name!r}; a name is one "
                "or more characters without '=', and neither it nor its value has a null character"
            )


def node_resources() -> list[Mapping[str, float]]:
    """Total resources of each live node of the connected cluster."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def dashboard_links() -> dict[str, str]:
    """Link to Ray's dashboard of the connected cluster, by name; empty if it has none."""
    address = dashboard_address()
    return {"Ray's dashboard": f"http://{address}"} if address else {}
