"""Resources that a trial needs, and the count of trials that a cluster can hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from modicum.errors import InputError

# Resources with a field of their own, by Ray's names.
_NAMED = {"CPU": "cpus", "GPU": "gpus", "memory": "memory"}

_MOST = 10_000
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Bundle:
    """Processors, memory and other resources that one process needs, all on one node.

    Attributes:
        cpus: CPU cores; may be a fraction.
        gpus: GPUs; may be a fraction.
        memory: Memory in bytes; 0 reserves none.
        resources: Amounts of other resources by the names that Ray's nodes give them, such as
            `{"TPU": 1}`; whole numbers above 1.

    Raises:
        InputError: An amount of another resource is impossible.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for name, amount in self.resources.items():
            if name in _NAMED:
                raise InputError(f"resources: {name!r} has a field of its own, {_NAMED[name]}")
            if not (0 <= amount <= 1 or (amount > 1 and amount == int(amount))):
                raise InputError(
                    f"resources: {name!r} must be 0 to 1 or a whole number, got {amount!r}"
                )

    def as_ray(self) -> dict[str, float]:
        """The bundle by Ray's names of resources, without zeros."""
        named = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory, **self.resources}
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

    def __post_init__(self) -> None:
        for bundle in self.bundles:
            amounts = bundle.as_ray().values()
            if not amounts or min(amounts) < 0:
                raise InputError(
                    "resources: each process needs some resource (cpus, gpus or memory above 0) "
                    f"and a negative amount of none, got {bundle}"
                )

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """All bundles that one running trial occupies."""
        return (self.trial, *self.actors, *self.nested)


def trials_that_fit(nodes: Sequence[Mapping[str, float]], resources: Resources) -> int:
    """Count the identical trials that fit on these nodes, with the processes that they start.

    Each bundle goes to the first node with room for it, larger bundles first.
    Nodes and bundles go by Ray's names (`CPU`, `GPU`, `memory`, others). The count ends at 10,000.
    """
    free = [dict(node) for node in nodes]
    bundles = sorted(
        (bundle.as_ray() for bundle in resources.bundles),
        key=lambda b: (len(b.keys() - _NAMED), b.get("GPU", 0.0), b.get("CPU", 0.0)),
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
    bundles = [bundle.as_ray() for bundle in resources.bundles]
    # Nodes also have resources that nobody asks for, such as their addresses.
    names = {*_NAMED, *(name for bundle in bundles for name in bundle)}
    needs = " + ".join(_words(bundle, names) for bundle in bundles)
    has = "; ".join(_words(node, names) for node in nodes) or "no node"
    raise InputError(f"resources: one trial needs {needs}, but the cluster has {has}")


def _words(amounts: Mapping[str, float], names: Iterable[str]) -> str:
    shown = {k: v for k, v in amounts.items() if k in names}
    return ", ".join(
        f"{amount / 2**30:.1f} GiB memory" if name == "memory" else f"{amount:g} {name}"
        for name, amount in shown.items()
    )
