"""The request for a job: the study, its run folder, and the job's options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from json import dumps, loads
from pathlib import Path, PurePosixPath
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

from modicum.errors import InputError
from modicum.submit.secret_detection import holds_secret, is_secret_variable, secret_values

METADATA = "modicum"

# In the home folder of the machine where the driver runs: the head, unless the driver asks for
# resources.
RUNS = "~/modicum/runs"

_KEYS_ADVICE = (
    "keys are never sent, since Ray shows a job's environment to everybody who may ask; put the "
    "key into a file of the cluster's machines (key_file), or into their environment before Ray "
    "is started there"
)


@dataclass(frozen=True)
class JobRequest:
    """Everything that a job needs to run a study, and to run it again.

    Attributes:
        config: Study file, relative to the packed folder.
        out: Run folder: an absolute path of the cluster, a path below `~`, or a URI.
        seeds: Number of seeds that replaces the file's.
        overrides: Settings to replace, each `key=value`.
        environment: Variables of every process of the job; no secrets.
        driver_cpus: CPUs that the driver reserves for itself.
        driver_gpus: GPUs that the driver reserves for itself.
        wait_for_resources: Longest wait for the first nodes, such as `10m`.
    """

    config: str
    out: str
    seeds: int | None = None
    overrides: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    driver_cpus: float | None = None
    driver_gpus: float | None = None
    wait_for_resources: str | None = None

    def __post_init__(self) -> None:
        """Refuse a run folder that would end with the job, and what looks like a secret."""
        _check_out(self.out)
        for pair in self.overrides:
            _refuse_secret("--set", *pair.partition("=")[::2])
        for name, value in self.environment.items():
            _refuse_secret("--env", name, value)

    @property
    def entrypoint(self) -> str:
        """The job's shell command."""
        return shlex.join(["python", "-m", "modicum", "run", *self._study()])

    def command(self, url: str) -> str:
        """The shell command that makes this request, in the packed folder."""
        command = ["modicum", "submit", *self._study(), "--address", url]
        for name, value in self.environment.items():
            command += ["--env", f"{name}={value}"]
        for option, count in (("cpus", self.driver_cpus), ("gpus", self.driver_gpus)):
            if count is not None:
                command += [f"--driver-{option}", f"{count:g}"]
        return shlex.join(command)

    def _study(self) -> list[str]:
        """Arguments that `modicum run` and `modicum submit` share."""
        arguments = [self.config, "--out", self.out]
        if self.seeds is not None:
            arguments += ["--seeds", str(self.seeds)]
        if self.wait_for_resources is not None:
            arguments += ["--wait-for-resources", self.wait_for_resources]
        for pair in self.overrides:
            arguments += ["--set", pair]
        return arguments

    @property
    def metadata(self) -> dict[str, str]:
        """The job's metadata, from which `of_job` restores the request."""
        return {METADATA: dumps(asdict(self))}

    @classmethod
    def of_job(cls, job: str, metadata: Mapping[str, str] | None) -> JobRequest:
        """Restore the request from a job's metadata.

        Raises:
            InputError: The job was not submitted by `modicum submit`.
        """
        kept = (metadata or {}).get(METADATA)
        if kept is None:
            raise InputError(f"--resume: the job {job!r} was not submitted by `modicum submit`")
        return cls(**loads(kept))

    def new_id(self) -> str:
        """A new job id that starts with the name of the study file."""
        study = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(self.config).stem)[:40]
        return f"{study}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{token_hex(2)}"


def environment_of(
    pairs: Sequence[str], data: str | None = None, cache: str | None = None
) -> dict[str, str]:
    """Environment variables of the job: `NAME=VALUE` pairs, and the cluster's two folders.

    Raises:
        InputError: A pair has another form, or a path is relative.
    """
    found = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            # Not quoted, because it may be a key.
            raise InputError("--env: expected NAME=VALUE, with a name of letters, digits and _")
        found[name] = value
    for option, name, path in (("data", "MODICUM_DATA", data), ("cache", "MODICUM_CACHE", cache)):
        if path is None:
            continue
        if not path.startswith("~/") and not PurePosixPath(path).is_absolute():
            raise InputError(
                f"--{option}: expected an absolute path of the cluster's machines, or one that "
                f"starts with ~/, got {path!r}"
            )
        found[name] = path
    return found


def _check_out(out: str) -> None:
    if "://" in out and "@" in urlsplit(out).netloc:
        raise InputError(f"--out: the URI holds a key; {_KEYS_ADVICE}")
    if "://" in out or out.startswith("~/") or PurePosixPath(out).is_absolute():
        return
    raise InputError(
        "--out: a job's working directory does not outlive it; give an absolute path of the "
        f"cluster, one that starts with ~/, or a URI such as s3://bucket/run, got {out!r}"
    )


def _refuse_secret(option: str, name: str, value: Any) -> None:
    if is_secret_variable(name):
        raise InputError(f"{option} {name}: its name is that of a secret; {_KEYS_ADVICE}")
    if holds_secret(str(value).encode(), secret_values()):
        raise InputError(f"{option} {name}: its value looks like a secret; {_KEYS_ADVICE}")
