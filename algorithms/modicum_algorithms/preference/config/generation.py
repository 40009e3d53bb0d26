"""Settings of the processes that sample completions."""

from __future__ import annotations

import importlib.util
from typing import Literal

import modicum as md

_POOL = {"generation.where": ("pool",)}


class GenerationSettings(md.Config):
    """Settings of the processes that sample completions."""

    where: Literal["workers", "pool"] = md.setting(
        "workers",
        description="Processes that sample completions: the training workers, or a separate pool "
        "of Ray Data actors with CPUs and GPUs of its own.",
        identity=False,
    )
    engine: Literal["transformers", "vllm"] = md.setting(
        "transformers",
        description="Engine of the pool: transformers samples the same completions as the "
        "workers; vllm (an extra, GPUs only) samples others from the same distribution, faster.",
        used_by=_POOL,
    )
    actors: int = md.setting(
        0,
        description="Actors of the pool; each holds the whole model.",
        ge=0,
        le=1024,
        identity=False,
        used_by=_POOL,
    )
    cpus: float = md.setting(
        1.0,
        description="CPU cores of each actor.",
        unit="CPUs",
        gt=0,
        identity=False,
        used_by=_POOL,
    )
    gpus: float = md.setting(
        0.0,
        description="GPUs of each actor; vllm splits the model over them (tensor parallelism).",
        unit="GPUs",
        ge=0,
        identity=False,
        used_by=_POOL,
    )
    start_timeout: float = md.setting(
        600.0,
        description="Time limit for the start of all actors.",
        unit="s",
        gt=0,
        identity=False,
        used_by=_POOL,
    )

    @property
    def bundles(self) -> tuple[md.Bundle, ...]:
        """Resources that the pool occupies while it samples."""
        if self.where == "workers":
            return ()
        return (md.Bundle(cpus=self.cpus, gpus=self.gpus),) * self.actors

    def check(self) -> None:
        """Refuse settings that are valid one by one and cannot work together.

        Raises:
            InputError: Naming the setting.
        """
        if self.where == "workers":
            return
        if self.actors < 1:
            raise md.InputError(
                f"generation.actors: must be 1 or more with generation.where pool, got "
                f"{self.actors}"
            )
        if self.engine == "transformers":
            if self.gpus > 1:
                raise md.InputError(
                    "generation.gpus: must be at most 1 with generation.engine transformers, "
                    f"got {self.gpus:g}"
                )
            return
        if self.gpus < 1 or self.gpus != int(self.gpus):
            raise md.InputError(
                "generation.gpus: must be a whole number, 1 or more, with generation.engine vllm, "
                f"got {self.gpus:g}"
            )
        if self.cpus < 1:
            raise md.InputError(
                f"generation.cpus: must be 1 or more with generation.engine vllm, got {self.cpus:g}"
            )
        if importlib.util.find_spec("vllm") is None:
            raise md.InputError(
                "generation.engine: vllm needs the package 'vllm' (extra 'vllm', on machines with "
                "GPUs)"
            )
