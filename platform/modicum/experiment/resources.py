"""Processors and memory that a trial needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bundle:
    """Processors and memory that one process needs, all on one node.

    Attributes:
        cpus: CPU cores, may be a fraction.
        gpus: GPUs, may be a fraction.
        memory: Bytes, or 0 to leave it unreserved.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory: float = 0.0

    def as_ray(self) -> dict[str, float]:
        """The bundle in Ray's names, zeros left out."""
        named = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        return {name: amount for name, amount in named.items() if amount}


@dataclass(frozen=True)
class Resources:
    """What one trial needs.

    Attributes:
        trial: The process that runs `Experiment.run`.
        actors: Reserved together with the trial, for actors that it starts itself
            (an RLlib algorithm's environment runners).
        nested: Asked for by the trial beyond what is reserved with it (a Ray Train worker
            group places itself). The runner starts only as many trials at once as fit with
            these included, so that trials cannot starve each other.
    """

    trial: Bundle = Bundle()
    actors: tuple[Bundle, ...] = ()
    nested: tuple[Bundle, ...] = ()

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """Everything that one running trial occupies."""
        return (self.trial, *self.actors, *self.nested)
