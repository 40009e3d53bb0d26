"""The steps of `modicum submit`: check, pack, start a job or resume one, and follow it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modicum.errors import InputError
from modicum.submit.checked_study import CheckedStudy, check_study
from modicum.submit.job_request import RUNS, JobRequest, environment_of
from modicum.submit.package import Limits, packed
from modicum.submit.ray_jobs import (
    connect,
    enable_token,
    find_job,
    follow,
    is_exposed,
    job_url,
    start_job,
)
from modicum.yaml_io import parse_settings


@dataclass(frozen=True)
class Job:
    """A job of the cluster, with the request that it was made from."""

    id: str
    request: JobRequest


class Submission:
    """Submits studies of one folder to one cluster. Messages go to standard error.

    Args:
        address: URL of the job API; None for the value of `RAY_API_SERVER_ADDRESS`.
        working_dir: Folder to pack.
        limits: Limits on the files that are packed.

    Raises:
        InputError: The URL or the folder is wrong.
    """

    def __init__(self, address: str | None, working_dir: Path, limits: Limits) -> None:
        self._url = job_url(address)
        self._folder = working_dir.expanduser()
        if not self._folder.is_dir():
            raise InputError(f"--working-dir: no folder at {str(working_dir)!r}")
        self._limits = limits

    def start(
        self,
        config: Path,
        *,
        out: str | None,
        seeds: int | None,
        overrides: Sequence[str],
        variables: Sequence[str],
        data: str | None,
        cache: str | None,
        driver_cpus: float | None,
        driver_gpus: float | None,
        wait_for_resources: str | None,
    ) -> Job:
        """Check a study, pack it and start its job; the arguments are those of the command.

        Raises:
            InputError: The study or an option has a mistake, something must not be sent, or the
                cluster does not answer or refuses the job.
        """
        environment = environment_of(variables, data, cache)
        study = self._check(config, seeds, overrides)
        request = JobRequest(
            config=study.files[0].as_posix(),
            out=out or f"{RUNS}/{study.name}",
            seeds=seeds,
            overrides=list(overrides),
            environment=environment,
            driver_cpus=driver_cpus,
            driver_gpus=driver_gpus,
            wait_for_resources=wait_for_resources,
        )
        self._client = connect(self._url)
        return self._submit(study, request)

    def resume(self, job: str) -> Job:
        """Return a job that still runs; start a job that has ended again, from the files as now.

        Raises:
            InputError: As `start`, or the cluster does not know the job.
        """
        self._client = connect(self._url)
        details = find_job(self._client, job)
        request = JobRequest.of_job(job, details.metadata)
        if details.status.is_terminal():
            config = self._folder / request.config
            return self._submit(self._check(config, request.seeds, request.overrides), request)
        self._warn_if_exposed()
        return self._announced(Job(job, request))

    def follow(self, job: Job) -> int:
        """Write the job's log until it ends.

        Returns the exit code of the command: the study's, or 1 if the driver has none.
        """
        try:
            ended = follow(self._client, job.id)
        except KeyboardInterrupt:
            _say(
                f"the job runs on; follow it again: {self._resume_command(job)}",
                f"stop it: ray job stop --address {self._url} {job.id}",
            )
            return 130
        except LookupError:
            _say(
                "error: the cluster knows the job no more, since its head was restarted; submit "
                f"the study again, and it continues: {job.request.command(self._url)}"
            )
            return 1
        except ConnectionError as error:
            _say(
                f"error: the cluster does not answer any more ({error}); "
                f"then: {self._resume_command(job)}"
            )
            return 1
        _say(f"job {job.id}: {ended.status.lower()}; results: {job.request.out} (on the cluster)")
        if ended.status == "SUCCEEDED":
            return 0
        if ended.driver_exit_code is None and ended.message:
            _say(ended.message.strip().splitlines()[-1])
        _say(f"run it again, and it continues: {self._resume_command(job)}")
        return ended.driver_exit_code or 1

    def _check(self, config: Path, seeds: int | None, overrides: Sequence[str]) -> CheckedStudy:
        settings = parse_settings(overrides, "--set")
        study = check_study(config, self._folder, overrides=settings, seeds=seeds)
        _say(f"{config}: {study.trials} trials", *study.notes)
        return study

    def _submit(self, study: CheckedStudy, request: JobRequest) -> Job:
        self._warn_if_exposed()
        with packed(study, self._folder, self._limits) as package:
            _say(f"package: {package.files} files, {package.size / 1e6:.2f} MB")
            if package.secrets:
                names = ", ".join(map(str, package.secrets))
                _say(f"left out, since they look like secrets: {names}")
            job = Job(start_job(self._client, request, package), request)
        return self._announced(job)

    def _warn_if_exposed(self) -> None:
        if is_exposed(self._url) and enable_token():
            _say(
                f"Ray's token travels unencrypted to {self._url}; a tunnel to localhost keeps it "
                "private"
            )

    def _announced(self, job: Job) -> Job:
        out = job.request.out
        _say(
            f"job:             {job.id}",
            f"Ray's dashboard: {self._url}/#/jobs/{job.id}",
            f"results:         {out} (on the cluster)",
            f"dashboard:       modicum dashboard {out}   (where that folder is seen)",
            f"follow:          {self._resume_command(job)}",
            f"stop:            ray job stop --address {self._url} {job.id}",
        )
        return job

    def _resume_command(self, job: Job) -> str:
        return f"modicum submit --address {self._url} --resume {job.id}"


def _say(*lines: str) -> None:
    # Standard output is for the job's log.
    for line in lines:
        print(line, file=sys.stderr)
