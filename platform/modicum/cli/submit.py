"""The command `modicum submit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from modicum.cli.study import Overrides, Seeds, WaitForResources, duration
from modicum.errors import InputError


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
        Path, typer.Option(help="Folder to pack; the study file is in it.")
    ] = Path("."),
    include: Annotated[
        list[str] | None,
        typer.Option(help="Pattern of files to pack although ignored. Repeatable."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Pattern of files to leave out. Repeatable.")
    ] = None,
    size_limit: Annotated[
        float, typer.Option(help="Maximum size of the package, MB.", min=0)
    ] = 50.0,
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
    wait_for_resources: WaitForResources = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow the log until the job ends.")
    ] = True,
    resume: Annotated[
        str | None,
        typer.Option(help="A job of this command: follow it, or run it again if it has ended."),
    ] = None,
) -> None:
    """Run a study as a job on a Ray cluster, and follow its log."""
    from modicum.submit.package import Limits
    from modicum.submit.submission import Submission

    limits = Limits(include or (), exclude or (), megabytes=size_limit)
    submission = Submission(address, working_dir, limits)
    if resume is not None:
        options = {
            "CONFIG": config,
            "--out": out,
            "--seeds": seeds,
            "--set": set_,
            "--data": data,
            "--cache": cache,
            "--env": env,
            "--driver-cpus": driver_cpus,
            "--driver-gpus": driver_gpus,
            "--wait-for-resources": wait_for_resources,
        }
        for name, value in options.items():
            if value:
                raise InputError(f"{name}: leave it out with --resume, which takes it from the job")
        job = submission.resume(resume)
    elif config is None:
        raise InputError("CONFIG: give a study file, or a job with --resume")
    else:
        duration(wait_for_resources)  # A mistake is said here, not by the job.
        job = submission.start(
            config,
            out=out,
            seeds=seeds,
            overrides=set_ or [],
            variables=env or [],
            data=data,
            cache=cache,
            driver_cpus=driver_cpus,
            driver_gpus=driver_gpus,
            wait_for_resources=wait_for_resources,
        )
    if wait:
        raise typer.Exit(submission.follow(job))
