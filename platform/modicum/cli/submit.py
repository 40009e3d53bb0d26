"""`modicum submit`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from modicum.cli.options import Overrides, Seeds
from modicum.errors import InputError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

    from modicum.submit.package import Limits
    from modicum.submit.request import Request
    from modicum.submit.study_files import CheckedStudy


def submit(
    config: Annotated[
        Path | None, typer.Argument(help="Study file (YAML).", show_default=False)
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="URL of the cluster's job API (http://HOST:8265); RAY_API_SERVER_ADDRESS if "
            "left out."
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="Run folder: a path of the cluster or a URI; ~/modicum/runs/NAME on the head if "
            "left out."
        ),
    ] = None,
    seeds: Seeds = None,
    set_: Overrides = None,
    working_dir: Annotated[
        Path, typer.Option(help="Folder whose files travel; the study file is in it.")
    ] = Path("."),
    include: Annotated[
        list[str] | None,
        typer.Option(help="Pattern of files that travel although ignored. Repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Pattern of files to leave out. Repeatable.")
    ] = None,
    size_limit: Annotated[float, typer.Option(help="Most that may travel, MB.", min=0)] = 50.0,
    data: Annotated[
        str | None, typer.Option(help="Folder of data sets on the cluster (MODICUM_DATA).")
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="Folder for caches on the cluster (MODICUM_CACHE).")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(help="Environment of the job: NAME=VALUE, no secrets. Repeatable."),
    ] = None,
    driver_cpus: Annotated[
        float | None, typer.Option(help="CPUs that the driver reserves.", min=0)
    ] = None,
    driver_gpus: Annotated[
        float | None, typer.Option(help="GPUs that the driver reserves.", min=0)
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow the log until the job ends.")
    ] = True,
    resume: Annotated[
        str | None,
        typer.Option(help="A job of this command: follow it, or run it again if it has ended."),
    ] = None,
) -> None:
    """Run a study as a job on a Ray cluster, and follow its log."""
    from modicum.submit.jobs import connect, find_job, is_exposed, job_url, use_token
    from modicum.submit.package import Limits
    from modicum.submit.request import RUNS, Request, environment_of

    url = job_url(address)
    folder = working_dir.expanduser()
    if not folder.is_dir():
        raise InputError(f"--working-dir: no folder at {str(working_dir)!r}")
    limits = Limits(include or (), exclude or (), size_limit)
    if resume is None:
        if config is None:
            raise InputError("CONFIG: give a study file, or a job with --resume")
        variables = environment_of(env or [], data, cache)
        study = _check(config, folder, seeds, set_ or [])
        request = Request(
            study.files[0].as_posix(),
            out or f"{RUNS}/{study.name}",
            seeds,
            set_ or [],
            variables,
            driver_cpus,
            driver_gpus,
        )
        client, job = connect(url), None
    else:
        _leave_out(
            {
                "CONFIG": config,
                "--out": out,
                "--seeds": seeds,
                "--set": set_,
                "--data": data,
                "--cache": cache,
                "--env": env,
                "--driver-cpus": driver_cpus,
                "--driver-gpus": driver_gpus,
            }
        )
        client = connect(url)
        found = find_job(client, resume)
        request = Request.of_job(resume, found.metadata)
        job = None if found.status.is_terminal() else resume
        if job is None:
            study = _check(folder / request.config, folder, request.seeds, request.overrides)
    if is_exposed(url) and use_token():
        _say(f"Ray's token travels unencrypted to {url}; a tunnel to localhost keeps it private")
    if job is None:
        job = _start(client, request, study, folder, limits)
    _say(*_directions(url, job, request))
    if wait:
        raise typer.Exit(_follow(client, url, job, request))


def _check(config: Path, folder: Path, seeds: int | None, overrides: Sequence[str]) -> CheckedStudy:
    from modicum.submit.study_files import check_study
    from modicum.yaml_io import parse_settings

    study = check_study(config, folder, overrides=parse_settings(overrides, "--set"), seeds=seeds)
    _say(f"{config}: {study.trials} trials", *study.notes)
    return study


def _start(
    client: JobSubmissionClient,
    request: Request,
    study: CheckedStudy,
    folder: Path,
    limits: Limits,
) -> str:
    from modicum.submit.jobs import runtime_environment, submit_job
    from modicum.submit.package import packed

    with packed(study, folder, limits) as package:
        _say(f"package: {package.files} files, {package.size / 1e6:.2f} MB")
        if package.secrets:
            names = ", ".join(map(str, package.secrets))
            _say(f"left out, since they look like secrets: {names}")
        return submit_job(
            client,
            entrypoint=request.entrypoint,
            submission_id=request.new_id(),
            runtime_env=runtime_environment(
                package.working_dir, package.modules, request.environment
            ),
            metadata=request.metadata,
            entrypoint_num_cpus=request.driver_cpus,
            entrypoint_num_gpus=request.driver_gpus,
        )


def _directions(url: str, job: str, request: Request) -> list[str]:
    return [
        f"job:             {job}",
        f"Ray's dashboard: {url}/#/jobs/{job}",
        f"results:         {request.out} (on the cluster)",
        f"dashboard:       modicum dashboard {request.out}   (where that folder is seen)",
        f"follow:          modicum submit --address {url} --resume {job}",
        f"stop:            ray job stop --address {url} {job}",
    ]


def _follow(client: JobSubmissionClient, url: str, job: str, request: Request) -> int:
    from modicum.submit.jobs import exit_code, follow

    again = f"modicum submit --address {url} --resume {job}"
    try:
        ended = follow(client, job)
    except KeyboardInterrupt:
        _say(
            f"the job runs on; follow it again: {again}",
            f"stop it: ray job stop --address {url} {job}",
        )
        return 130
    except ConnectionError as error:
        _say(f"error: the cluster does not answer any more ({error}); then: {again}")
        return 1
    _say(f"job {job}: {ended.status.lower()}; results: {request.out} (on the cluster)")
    if ended.status != "SUCCEEDED":
        if ended.driver_exit_code is None and ended.message:
            _say(ended.message.strip().splitlines()[-1])
        _say(f"run it again, and it continues: {again}")
    return exit_code(ended)


def _leave_out(options: dict[str, object]) -> None:
    for name, value in options.items():
        if value:
            raise InputError(f"{name}: leave it out with --resume, which takes it from the job")


def _say(*lines: str) -> None:
    # Beside the job's log, which is on standard output.
    for line in lines:
        print(line, file=sys.stderr)
