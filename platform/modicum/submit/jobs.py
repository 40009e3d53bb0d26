"""Ray's job API: finding it, starting a job there, and following one to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from modicum.errors import InputError, reason_of
from modicum.ray_support.connection import auth_token
from modicum.ray_support.private_api import PACKAGING_LOGGER

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")

# They tell of every package and every closed connection.
_CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    PACKAGING_LOGGER,
)

# A head that is away for longer than this many seconds is taken to be lost.
_PATIENCE = 60.0
_PAUSE = 2.0


def job_url(address: str | None) -> str:
    """The URL of the job API.

    Args:
        address: As the user gave it; None for what `RAY_API_SERVER_ADDRESS` says.

    Raises:
        InputError: There is none, or it is no URL.
    """
    given = address or os.environ.get("RAY_API_SERVER_ADDRESS")
    if not given:
        raise InputError(
            "--address: give the URL of the cluster's job API (often http://HOST:8265), or set "
            "RAY_API_SERVER_ADDRESS"
        )
    parts = urlsplit(given)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InputError(
            "--address: expected the URL of the cluster's job API (often http://HOST:8265), "
            f"got {given!r}"
        )
    if parts.username or parts.password:
        raise InputError("--address: a password in the URL would be shown; Ray takes a token")
    return given.rstrip("/")


def connect(url: str) -> JobSubmissionClient:
    """A client of the job API, which has answered; with Ray's token if this machine has one.

    Raises:
        InputError: Nothing answers, or it refuses the token.
    """
    use_token()
    # Ray would take these for the address, whatever it is told.
    for name in ADDRESS_VARIABLES:
        os.environ.pop(name, None)
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        return JobSubmissionClient(url)
    except AuthenticationError as error:
        raise InputError(
            f"--address: {url} refuses the token of this machine, or there is none; set "
            "RAY_AUTH_TOKEN_PATH to a file with the cluster's token"
        ) from error
    except Exception as error:
        raise InputError(f"--address: no job API answers at {url} ({reason_of(error)})") from error


def use_token() -> bool:
    """Turn Ray's token authentication on where a token is at hand and nothing says otherwise.

    Returns:
        Whether a token will be sent.
    """
    if auth_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    return os.environ.get("RAY_AUTH_MODE") == "token"


def is_exposed(url: str) -> bool:
    """Whether what is sent there can be read on the way."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    return parts.scheme == "http" and not loopback


def find_job(client: JobSubmissionClient, job: str) -> JobDetails:
    """What the cluster knows of a job.

    Raises:
        InputError: It does not know it.
    """
    try:
        return client.get_job_info(job)
    except RuntimeError as error:
        raise InputError(
            f"--resume: the cluster knows no job {job!r} (a new head forgets all jobs); submit "
            "the study again with the same --out, and it continues"
        ) from error


def follow(
    client: JobSubmissionClient, job: str, write: Callable[[str], object] = sys.stdout.write
) -> JobDetails:
    """Pass a job's log on until the job has ended.

    Args:
        client: Of the job API.
        job: The job.
        write: Takes the log, piece by piece.

    Raises:
        ConnectionError: The cluster has not answered for a minute.
        KeyboardInterrupt: The user has seen enough; the job runs on.
    """
    written, lost_since = 0, None
    while True:
        try:
            written += asyncio.run(_pass_on(client, job, written, write))
            details = client.get_job_info(job)
        except Exception as error:
            now = time.monotonic()
            lost_since = now if lost_since is None else lost_since
            if now - lost_since > _PATIENCE:
                raise ConnectionError(reason_of(error)) from error
        else:
            if details.status.is_terminal():
                return details
            lost_since = None
        time.sleep(_PAUSE)


async def _pass_on(
    client: JobSubmissionClient, job: str, known: int, write: Callable[[str], object]
) -> int:
    """Write what follows the first `known` characters of the log, and count it."""
    seen = 0
    async for text in client.tail_job_logs(job):
        fresh = text[max(known - seen, 0) :]
        seen += len(text)
        if fresh:
            write(fresh)
            sys.stdout.flush()
    return max(seen - known, 0)


def exit_code(details: JobDetails) -> int:
    """What `modicum submit` ends with: the study's own code, 1 where it has none."""
    if details.status == "SUCCEEDED":
        return 0
    return details.driver_exit_code or 1


def submit_job(client: JobSubmissionClient, **request: Any) -> str:
    """Start a job; see `JobSubmissionClient.submit_job`.

    Raises:
        InputError: The cluster does not take it.
    """
    try:
        return client.submit_job(**request)
    except RuntimeError as error:
        raise InputError(f"--address: the cluster refuses the job ({reason_of(error)})") from error


def runtime_environment(
    working_dir: Path, modules: list[Path], variables: Mapping[str, str]
) -> dict[str, Any]:
    """Ray's runtime environment of a job: everybody who may ask sees it.

    Args:
        working_dir: What was packed.
        modules: Packages that the cluster may not have.
        variables: Of every process of the job.
    """
    return {
        "working_dir": str(working_dir),
        "py_modules": [str(module) for module in modules],
        "env_vars": dict(variables),
    }
