"""`modicum plan`: memory, tokens and time of a study's trials, before machines are rented."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import modicum as md

_LEAST = 0.001


def plan(
    study: Annotated[
        Path, typer.Argument(help="Study file (YAML) of preference.", show_default=False)
    ],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace a setting: key=value, value as YAML. Repeatable."),
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(help="Memory of a GPU in GB; tells whether it is enough.", min=_LEAST),
    ] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option(help="Tokens of a prompt, if no setting limits them.", min=1)
    ] = None,
    tokens_per_second: Annotated[
        float | None, typer.Option(help="Tokens a worker fine-tunes on per second.", min=_LEAST)
    ] = None,
    sampled_per_second: Annotated[
        float | None, typer.Option(help="Tokens a worker or actor samples a second.", min=_LEAST)
    ] = None,
    judged_per_minute: Annotated[
        float | None, typer.Option(help="Judgements per minute of the oracle.", min=_LEAST)
    ] = None,
) -> None:
    """Calculate memory by part, tokens and time of a preference study, without running it."""
    from modicum_algorithms.preference.planning.report import plan_report

    planned = md.Study.from_yaml(study, overrides=md.parse_settings(set_ or [], "--set"))
    rates = (tokens_per_second, sampled_per_second, judged_per_minute)
    print(plan_report(planned, gpu_memory, prompt_tokens, rates))
