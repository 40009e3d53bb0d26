"""The commands that show what is installed: `modicum list`, `describe` and `doctor`."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from importlib import metadata
from typing import Annotated

import typer

from modicum.errors import InputError
from modicum.experiment.registry import experiment_names, get_experiment

_KEYS = ("OPENAI_API_KEY", "HF_TOKEN", "WANDB_API_KEY")
_OPTIONAL = {
    "transformers": "weak, oracles, llm",
    "datasets": "weak, llm",
    "constriction": "vae",
    "gymnasium": "rl",
    "deepspeed": "llm",
    "peft": "llm",
    "openai": "oracles, llm",
}


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


def doctor() -> None:
    """Say what this machine has: versions, Ray's authentication, accelerators, keys, data."""
    for name, text in findings():
        print(f"{name:22} {text}")


def findings() -> Iterator[tuple[str, str]]:
    """Yield the name of each examined item with the finding."""
    from modicum.data.cache import cache_folder, data_folder
    from modicum.oracles.ledger.database import ledgers_folder
    from modicum.ray_support.connection import auth_token
    from modicum.run_folder import provenance

    facts = provenance.gather(command="modicum doctor")
    yield "python", facts["python"]
    for name, version in facts["packages"].items():
        yield (
            name,
            f"{version} (modicum was tested with {_tested_ray()})" if name == "ray" else version,
        )
    for name, extra in _OPTIONAL.items():
        if importlib.util.find_spec(name) is None:
            yield name, f"not installed (extra: {extra})"
        elif name not in facts["packages"]:
            yield name, metadata.version(name)
    yield "experiments", ", ".join(experiment_names()) or "none"
    hardware = facts["hardware"]
    yield "cores", f"{hardware['cores']} ({hardware['processor']})"
    yield "memory", f"{hardware['memory_gib']} GiB"
    yield "accelerators", _accelerators()
    mode = os.environ.get("RAY_AUTH_MODE", "unset (on for clusters started by modicum)")
    token = auth_token()
    yield "ray authentication", f"mode {mode}; token {f'in {token}' if token else 'absent'}"
    yield "git", shutil.which("git") or "not found: commits will not be recorded"
    for key in _KEYS:
        yield key, "present" if os.environ.get(key) else "absent"
    try:
        folder = data_folder()
    except InputError as error:
        yield "data", str(error)
    else:
        names = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder else []
        yield "data", f"{folder}: {', '.join(names)}" if folder else "MODICUM_DATA is unset"
    yield "cache", str(cache_folder())
    yield "ledgers", str(ledgers_folder())


def _tested_ray() -> str:
    """Range of Ray's releases that this package was tested with: its own requirement."""
    required = next(r for r in metadata.requires("modicum") or () if re.match(r"ray\b", r))
    return re.sub(r"^ray(\[.*?\])?\s*", "", required)


def _accelerators() -> str:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return ", ".join(names)
    if torch.backends.mps.is_available():
        return "Apple GPU"
    return "none"
