"""The command `modicum doctor`. Keys are named, their values never shown."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from importlib import metadata

from modicum.errors import InputError
from modicum.experiment.registry import experiment_names

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
        yield name, version
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


def _accelerators() -> str:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return ", ".join(names)
    if torch.backends.mps.is_available():
        return "Apple GPU"
    return "none"
