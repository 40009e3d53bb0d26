"""The environment on which floating-point results depend, beside the settings."""

from __future__ import annotations

import platform

import torch
from pydantic import BaseModel, ConfigDict


class Environment(BaseModel):
    """An environment in which networks are evaluated in floating point (pinned mode).

    Attributes:
        torch: Version of torch.
        machine: Architecture of the CPU.
        instructions: The widest instruction set that torch uses on the CPU.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    torch: str
    machine: str
    instructions: str

    @classmethod
    def here(cls) -> Environment:
        """The environment of this process."""
        return cls(
            torch=torch.__version__.split("+")[0],
            machine=platform.machine(),
            instructions=torch.backends.cpu.get_cpu_capability(),
        )

    def __str__(self) -> str:
        return f"torch {self.torch} on {self.machine} with {self.instructions}"
