"""Processors and memory that a trial needs, and the count of trials that a cluster can hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modicum.errors import InputError

_MOST = 10_000
_ROUNDING = 1e-9


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


def trials_that_fit(nodes: Sequence[Mapping[str, float]], resources: Resources) -> int:
    """Count the identical trials that fit on these nodes, with the processes that they start.

    Each bundle goes to the first node with room for it, larger bundles first.
    Nodes and bundles go by Ray's names (`CPU`, `GPU`, `memory`). The count ends at 10,000.
    """
    free = [dict(node) for node in nodes]
    bundles = sorted(
        (bundle.as_ray() for bundle in resources.bundles),
        key=lambda b: (b.get("GPU", 0.0), b.get("CPU", 0.0)),
        reverse=True,
    )
    for count in range(_MOST):
        for bundle in bundles:
            node = next((n for n in free if _holds(n, bundle)), None)
            if node is None:
                return count
            for name, amount in bundle.items():
                node[name] -= amount
    return _MOST


def _holds(node: Mapping[str, float], bundle: Mapping[str, float]) -> bool:
    return all(node.get(name, 0.0) + _ROUNDING >= amount for name, amount in bundle.items())


def require_fit(nodes: Sequence[Mapping[str, float]], resources: Resources) -> int:
    """Count the trials that fit as `trials_that_fit` does, at least one.

    Raises:
        InputError: Not even one trial fits; without this check Ray would wait for ever.
    """
    count = trials_that_fit(nodes, resources)
    if count:
        return count
    needs = " + ".join(_words(bundle.as_ray()) for bundle in resources.bundles)
    has = "; ".join(_words(node) for node in nodes) or "no node"
    raise InputError(f"resources: one trial needs {needs}, but the cluster has {has}")


def _words(amounts: Mapping[str, float]) -> str:
    shown = {k: v for k, v in amounts.items() if k in {"CPU", "GPU", "memory"}}
    return ", ".join(
        f"{amount / 2**30:.1f} GiB memory" if name == "memory" else f"{amount:g} {name}"
        for name, amount in shown.items()
    )
