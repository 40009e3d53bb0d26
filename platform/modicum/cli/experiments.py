"""The commands `modicum list` and `modicum describe`, which show installed experiments."""

from __future__ import annotations

from typing import Annotated

import typer

from modicum.errors import InputError
from modicum.experiment.registry import experiment_names, get_experiment


def list_experiments() -> None:
    """List the experiments that are installed."""
    for name in experiment_names():
        try:
            experiment = get_experiment(name)
        except InputError as error:
            print(f"{name:16} not usable: {error}")
            continue
        summary = (type(experiment).__doc__ or "").strip().splitlines()[0]
        print(f"{name:16} budget: {experiment.budget_unit:14} {summary}")


def describe(
    experiment: Annotated[str, typer.Argument(help="Name of an experiment.", show_default=False)],
) -> None:
    """Show an experiment's settings (with defaults and units) and its metrics."""
    from modicum.experiment.config import settings_of

    found = get_experiment(experiment)
    print(f"{found.name} {found.version}; budget: {found.budget_unit}\n\nsettings")
    for info in settings_of(found.Config).values():
        default = "required" if info.required else f"default {info.default}"
        unit = f" {info.unit}" if info.unit else ""
        limits = "".join(f", {name} {value}" for name, value in info.limits.items())
        print(f"  {info.name}: {info.kind} ({default}{unit}{limits})\n      {info.description}")
        for other, values in (info.used_by or {}).items():
            print(f"      only with {other}: {', '.join(map(str, values))}")
    print("\nmetrics")
    for name, metric in found.metrics.items():
        goal = {"max": "more is better", "min": "less is better", None: ""}[metric.goal]
        notes = ", ".join(part for part in (metric.unit, goal) if part)
        print(f"  {name}: {metric.description}" + (f" ({notes})" if notes else ""))
