"""Acquisitions by name: those built in, and those that packages register."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

import modicum as md
from modicum_algorithms.preference.methods.acquisition.candidates import (
    OF_COMPLETIONS,
    QUANTITIES,
    Acquisition,
    Highest,
)
from modicum_algorithms.preference.methods.acquisition.certainty import (
    certainty,
    certainty_per_cost,
    uncertainty,
)
from modicum_algorithms.preference.methods.acquisition.diverse_certainty import DiverseCertainty
from modicum_algorithms.preference.methods.acquisition.entropy import entropy
from modicum_algorithms.preference.methods.acquisition.random import Random

ACQUISITIONS = "modicum.acquisitions"


@dataclass(frozen=True)
class Stages:
    """An acquisition of pairs, perhaps preceded by a choice of prompts.

    Attributes:
        pairs: Acquisition that chooses the pairs for the oracle.
        prompts: Acquisition that chooses S of J × S drawn prompts before pairs are generated; None
            to draw S prompts at once.
    """

    pairs: Acquisition
    prompts: Acquisition | None = None

    @property
    def needs_completions(self) -> bool:
        """True if pairs must be generated for all S prompts, not just for the chosen ones."""
        return not self.pairs.needs.isdisjoint(OF_COMPLETIONS)

    def prompts_to_draw(self, kept: int, factor: int, left: int) -> int:
        """Number of prompts to draw in a round: J × S, or S if no stage chooses among prompts.

        Args:
            kept: S, the number of prompts whose pairs are candidates.
            factor: J.
            left: Number of prompts in the pool, which limits the result.
        """
        return min(left, kept if self.prompts is None else factor * kept)


_ENTROPY = Highest(entropy, frozenset({"entropy"}))
_CERTAINTY = Highest(certainty, frozenset({"rewards"}))
BUILT_IN: Mapping[str, Stages] = {
    "random": Stages(Random()),
    "entropy": Stages(_ENTROPY),
    "certainty": Stages(_CERTAINTY),
    "entropy_certainty": Stages(_CERTAINTY, prompts=_ENTROPY),  # section 6.3.1, a hybrid approach
    "low_certainty": Stages(Highest(uncertainty, frozenset({"rewards"}))),
    "diverse_certainty": Stages(DiverseCertainty()),
    "certainty_per_cost": Stages(Highest(certainty_per_cost, frozenset({"rewards", "costs"}))),
}


def acquisition_names() -> list[str]:
    """Names of the acquisitions that are built in or registered by packages."""
    return sorted({*BUILT_IN, *entry_points(group=ACQUISITIONS).names})


def get_acquisition(name: str) -> Stages:
    """The acquisition with the given name.

    Packages register their own in the entry-point group `modicum.acquisitions`: an `Acquisition`,
    `Stages`, or a class or function that returns one when called without arguments.

    Raises:
        InputError: No acquisition or several have this name, it cannot be imported, or it is not
            an acquisition.
    """
    points = entry_points(group=ACQUISITIONS, name=name)
    offers = len(points) + (name in BUILT_IN)
    if offers == 0:
        allowed = ", ".join(acquisition_names())
        raise md.InputError(f"acquisition: must be one of {allowed}, got {name!r}")
    if offers > 1:
        raise md.InputError(
            f"acquisition: {name!r} must be the name of one acquisition, {offers} have it"
        )
    if name in BUILT_IN:
        return BUILT_IN[name]
    (point,) = points
    return _loaded(point)


def _loaded(point: EntryPoint) -> Stages:
    try:
        found = point.load()
    except (ImportError, AttributeError) as error:
        raise md.InputError(
            f"acquisition: {point.name!r} ({point.value}) must be importable, got: {error}"
        ) from error
    if isinstance(found, type) or not (isinstance(found, Stages) or hasattr(found, "choose")):
        found = found()
    stages = found if isinstance(found, Stages) else Stages(found)
    for acquisition in filter(None, (stages.prompts, stages.pairs)):
        needs = getattr(acquisition, "needs", None)
        if not (isinstance(needs, frozenset) and needs <= QUANTITIES) or not callable(
            getattr(acquisition, "choose", None)
        ):
            raise md.InputError(
                f"acquisition: {point.name!r} ({point.value}) must have choose() and needs, a "
                f"frozenset of {', '.join(sorted(QUANTITIES))}, got needs = {needs!r}"
            )
    if stages.prompts is not None and not stages.prompts.needs.isdisjoint(OF_COMPLETIONS):
        raise md.InputError(
            f"acquisition: {point.name!r} must choose prompts without "
            f"{' and '.join(sorted(OF_COMPLETIONS))}, which only completions have"
        )
    return stages
