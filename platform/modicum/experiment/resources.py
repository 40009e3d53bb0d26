"""Processors and memory that a trial needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bundle:
    """Processors and memory that one process needs, all on one node.

    Attributes:
        cpus: CPU cores; may be a fraction.
        gpus: GPUs; may be a fraction.
        memory: Memory in bytes; 0 reserves none.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory: float = 0.0

    def as_ray(self) -> dict[str, float]:
        """The bundle by Ray's names of resources, without zeros."""
        named = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        return {name: amount for name, amount in named.items() if amount}


@dataclass(frozen=True)
class Resources:
    """Resources of one trial.

    Attributes:
        trial: The process that runs `Experiment.run`.
        actors: Actors that the trial starts (an RLlib algorithm's environment runners), reserved
            together with the trial.
        nested: Workers that reserve their resources themselves (a Ray Train worker group). The
            runner counts them when it decides how many trials to start at once, so that trials
            cannot starve each other.
    """

    trial: Bundle = Bundle()
    actors: tuple[Bundle, ...] = ()
    nested: tuple[Bundle, ...] = ()

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """All bundles that one running trial occupies."""
        return (self.trial, *self.actors, *self.nested)
