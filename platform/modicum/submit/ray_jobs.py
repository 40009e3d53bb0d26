"""Ray's job API: connecting to it, starting a job, and following a job's log to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from modicum.errors import InputError, reason_of
from modicum.ray_support.connection import auth_token
from modicum.ray_support.private_api import PACKAGING_LOGGER
from modicum.submit.job_request import JobRequest
from modicum.submit.package import Package

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

# They log every package and every closed connection.
_VERBOSE_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    PACKAGING_LOGGER,
)

# Seconds without an answer after which the cluster counts as lost.
_PATIENCE = 60.0
_PAUSE = 2.0


def job_url(address: str | None) -> str:
    """URL of the job API: the user's, or that of `RAY_API_SERVER_ADDRESS`.

    Raises:
        InputError: No URL is given, or it is malformed or holds a password.
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
    """Connect to the job API, with Ray's token if this machine has one.

    Raises:
        InputError: Nothing answers, or the token is refused.
    """
    enable_token()
    # Ray's client would prefer these variables to its argument.
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        os.environ.pop(name, None)
    # Ray reads the variables of its authentication when it is imported.
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in _VERBOSE_LOGGERS:
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


def enable_token() -> bool:
    """Turn Ray's token authentication on if a token is found and no variable turns it off.

    Returns True if a token will be sent.
    """
    if auth_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    return os.environ.get("RAY_AUTH_MODE") == "token"


def is_exposed(url: str) -> bool:
    """True if requests leave this machine unencrypted."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    return parts.scheme == "http" and not loopback


def find_job(client: JobSubmissionClient, job: str) -> JobDetails:
    """Details of a job.

    Raises:
        InputError: The cluster does not know the job.
    """
    try:
        return client.get_job_info(job)
    except RuntimeError as error:
        raise InputError(
            f"--resume: the cluster knows no job {job!r} (a new head forgets all jobs); submit "
            "the study again with the same --out, and it continues"
        ) from error


def start_job(client: JobSubmissionClient, request: JobRequest, package: Package) -> str:
    """Upload a package and start its job.

    The runtime environment holds no secret, since Ray shows it to everybody who may ask.

    Returns:
        The job's id.

    Raises:
        InputError: The cluster refuses the job.
    """
    try:
        return client.submit_job(
            entrypoint=request.entrypoint,
            submission_id=request.new_id(),
            runtime_env={
                "working_dir": str(package.working_dir),
                "py_modules": [str(module) for module in package.modules],
                "env_vars": dict(request.environment),
            },
            metadata=request.metadata,
            entrypoint_num_cpus=request.driver_cpus,
            entrypoint_num_gpus=request.driver_gpus,
        )
    except RuntimeError as error:
        raise InputError(f"--address: the cluster refuses the job ({reason_of(error)})") from error


def follow(
    client: JobSubmissionClient, job: str, write: Callable[[str], object] = sys.stdout.write
) -> JobDetails:
    """Write a job's log, piece by piece, until the job has ended.

    Raises:
        LookupError: The cluster knows the job no more: its head was restarted.
        ConnectionError: The cluster has not answered for a minute.
        KeyboardInterrupt: The user stopped following; the job continues.
    """
    written, lost_since = 0, None
    while True:
        try:
            details = client.get_job_info(job)
            written += asyncio.run(_write_new_log(client, job, written, write))
        except Exception as error:
            if isinstance(error, RuntimeError) and "status code 404" in str(error):
                raise LookupError(job) from error
            now = time.monotonic()
            lost_since = now if lost_since is None else lost_since
            if now - lost_since > _PATIENCE:
                raise ConnectionError(reason_of(error)) from error
        else:
            if details.status.is_terminal():
                return details
            lost_since = None
        time.sleep(_PAUSE)


async def _write_new_log(
    client: JobSubmissionClient, job: str, known: int, write: Callable[[str], object]
) -> int:
    """Write the log after its first `known` characters, and count the characters written."""
    seen = 0
    async for text in client.tail_job_logs(job):
        fresh = text[max(known - seen, 0) :]
        seen += len(text)
        if fresh:
            write(fresh)
            sys.stdout.flush()
    return max(seen - known, 0)
