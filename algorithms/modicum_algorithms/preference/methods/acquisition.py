"""Acquisition functions: which pairs of completions to ask the oracle about (section 6.3.1).

Shapes: S candidates (a prompt, or a prompt with two completions), N samples, D dimensions of an
embedding, K chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol

import numpy as np

import modicum as md

_ENTRY_POINTS = "modicum.acquisitions"
_FIELDS = {
    "entropy": "sample_log_probabilities_SN",
    "rewards": "implicit_rewards_S2",
    "embeddings": "embeddings_SD",
    "costs": "costs_S",
}
QUANTITIES = frozenset(_FIELDS)
# Quantities that exist only once completions have been generated.
_OF_COMPLETIONS = frozenset({"rewards", "costs"})


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Quantities of the candidates; those that the acquisition does not need may be None.

    Attributes:
        size: S, the number of candidates.
        sample_log_probabilities_SN: `"entropy"`: log pθ(yⁿ|x) of samples yⁿ ~ pθ(y|x), each the sum
            over the completion's tokens, in nats.
        implicit_rewards_S2: `"rewards"`: r̂ = β (log pθ − log pθ0) of both completions (equation
            6.5 with its log). While θ = θ0 they must be exactly 0: rounding errors grow with
            length, so ranking by them would favour long completions.
        embeddings_SD: `"embeddings"`: vectors of the prompts; similar prompts are close.
        costs_S: `"costs"`: the oracle's price of a judgement, above 0, in any unit.

    Raises:
        ValueError: A shape is wrong, a number is NaN or infinite, or a price is not above 0.
    """

    size: int
    sample_log_probabilities_SN: np.ndarray | None = None
    implicit_rewards_S2: np.ndarray | None = None
    embeddings_SD: np.ndarray | None = None
    costs_S: np.ndarray | None = None

    def __post_init__(self) -> None:
        for field in _FIELDS.values():
            array = getattr(self, field)
            if array is None:
                continue
            dimensions = 1 if field == "costs_S" else 2
            if array.ndim != dimensions or len(array) != self.size or array.size == 0 < self.size:
                raise ValueError(f"{field}: wrong shape {array.shape} of {self.size} candidates")
            if not np.isfinite(array).all():
                raise ValueError(f"{field}: all numbers must be finite")
        if self.implicit_rewards_S2 is not None and self.implicit_rewards_S2.shape[1] != 2:
            raise ValueError("implicit_rewards_S2: a pair has two completions")
        if self.costs_S is not None and (self.costs_S <= 0).any():
            raise ValueError("costs_S: prices must be above 0")

    def quantity(self, name: str) -> np.ndarray:
        """The array of a quantity, in float64.

        Args:
            name: One of `QUANTITIES`.

        Raises:
            ValueError: The quantity is None.
        """
        array = getattr(self, _FIELDS[name])
        if array is None:
            raise ValueError(f"{_FIELDS[name]}: the acquisition needs it")
        return np.asarray(array, np.float64)


class Acquisition(Protocol):
    """A rule that chooses among candidates."""

    @property
    def needs(self) -> frozenset[str]:
        """The subset of `QUANTITIES` that the rule uses."""

    def choose(
        self, candidates: Candidates, count: int, generator: np.random.Generator
    ) -> np.ndarray:
        """Indices of the chosen candidates, distinct, best first, (K,).

        Args:
            candidates: Candidates with every quantity in `needs`.
            count: K, from 1 to the number of candidates.
            generator: Generator that breaks ties.
        """


def choose(
    acquisition: Acquisition, candidates: Candidates, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Let an acquisition choose, and check its answer.

    Args:
        acquisition: Built in or a user's.
        candidates: Candidates with every quantity that the acquisition needs.
        count: Number to choose; all candidates if there are fewer.
        generator: Generator that breaks ties.

    Returns:
        Indices of the chosen candidates, distinct, best first, (K,).

    Raises:
        ValueError: `count` is below 1, a needed quantity is None, or the acquisition does not
            return K distinct indices.
    """
    if count < 1:
        raise ValueError(f"count: must be at least 1, got {count}")
    for name in acquisition.needs:
        candidates.quantity(name)
    count = min(count, candidates.size)
    if count == 0:
        return np.zeros(0, np.int64)
    chosen_K = np.asarray(acquisition.choose(candidates, count, generator))
    known = np.isin(chosen_K, np.arange(candidates.size)).all()
    if chosen_K.shape != (count,) or not known or len(np.unique(chosen_K)) < count:
        raise ValueError(
            f"acquisition: must choose {count} distinct candidates of {candidates.size}, "
            f"got {chosen_K}"
        )
    return chosen_K.astype(np.int64)


def best(scores_S: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Indices of the highest scores, best first, (K,); equal scores in random order.

    Args:
        scores_S: Finite scores.
        count: K; all scores if there are fewer.
        generator: Generator that breaks ties.

    Raises:
        ValueError: A score is NaN or infinite.
    """
    if not np.isfinite(scores_S).all():
        raise ValueError("scores: all must be finite")
    shuffled_S = generator.permutation(len(scores_S))
    return shuffled_S[np.argsort(-scores_S[shuffled_S], kind="stable")][:count]


def entropy(candidates: Candidates) -> np.ndarray:
    """Monte Carlo estimate of the predictive entropy H[pθ(y|x)] of each prompt, in nats, (S,)."""
    return -candidates.quantity("entropy").mean(1)  # equation 6.8


def certainty(candidates: Candidates) -> np.ndarray:
    """Absolute difference of the implicit rewards of the two completions, (S,)."""
    first_S, second_S = candidates.quantity("rewards").T
    return np.abs(first_S - second_S)  # equation 6.9


def uncertainty(candidates: Candidates) -> np.ndarray:
    """Negative certainty, (S,): uncertainty sampling under the Bradley–Terry model."""
    return -certainty(candidates)


def certainty_per_cost(candidates: Candidates) -> np.ndarray:
    """Certainty divided by the oracle's price of the judgement, (S,)."""
    return certainty(candidates) / candidates.quantity("costs")


@dataclass(frozen=True)
class Highest:
    """Acquisition of the candidates with the highest scores; `score` returns all, (S,)."""

    score: Callable[[Candidates], np.ndarray]
    needs: frozenset[str]

    def choose(
        self, candidates: Candidates, count: int, generator: np.random.Generator
    ) -> np.ndarray:
        """See `Acquisition`."""
        return best(self.score(candidates), count, generator)


@dataclass(frozen=True)
class Random:
    """Acquisition of a uniformly random subset."""

    needs: frozenset[str] = frozenset()

    def choose(
        self, candidates: Candidates, count: int, generator: np.random.Generator
    ) -> np.ndarray:
        """See `Acquisition`."""
        return generator.permutation(candidates.size)[:count]


@dataclass(frozen=True)
class DiverseCertainty:
    """Acquisition of certain pairs whose prompts differ from each other.

    The candidates are chosen one by one. The next one maximises the weighted mean of its certainty
    and its distance to the nearest prompt chosen before, each divided by the maximum over the
    remaining candidates. With all weight on the distance, this is k-centre greedy (Sener and
    Savarese 2018).

    Attributes:
        certainty_weight: Weight of the certainty, from 0 to 1; the distance has the rest.
    """

    certainty_weight: float = 0.5
    needs: frozenset[str] = frozenset({"rewards", "embeddings"})

    def choose(
        self, candidates: Candidates, count: int, generator: np.random.Generator
    ) -> np.ndarray:
        """See `Acquisition`."""
        shuffled_S = generator.permutation(candidates.size)  # argmax takes the first of equals
        certainties_S = certainty(candidates)[shuffled_S]
        embeddings_SD = candidates.quantity("embeddings")[shuffled_S]
        distances_S = np.full(candidates.size, np.inf)
        left_S = np.ones(candidates.size, bool)
        chosen = [int(np.argmax(certainties_S if self.certainty_weight else left_S))]
        while True:
            left_S[chosen[-1]] = False
            if len(chosen) == count:
                return shuffled_S[chosen]
            to_last_S = np.linalg.norm(embeddings_SD - embeddings_SD[chosen[-1]], axis=1)
            distances_S = np.minimum(distances_S, to_last_S)
            scores_S = self.certainty_weight * _of_largest(certainties_S, left_S)
            scores_S += (1 - self.certainty_weight) * _of_largest(distances_S, left_S)
            chosen.append(int(np.argmax(np.where(left_S, scores_S, -np.inf))))


def _of_largest(values_S: np.ndarray, left_S: np.ndarray) -> np.ndarray:
    """Values divided by the maximum over the remaining candidates; zeros where that is 0."""
    largest = float(values_S[left_S].max())
    return values_S / largest if largest > 0 else np.zeros_like(values_S)


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
        return not self.pairs.needs.isdisjoint(_OF_COMPLETIONS)

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
    return sorted({*BUILT_IN, *entry_points(group=_ENTRY_POINTS).names})


def get_acquisition(name: str) -> Stages:
    """The acquisition with the given name.

    Packages register their own in the entry-point group `modicum.acquisitions`: an `Acquisition`,
    `Stages`, or a class or function that returns one when called without arguments.

    Raises:
        InputError: No acquisition or several have this name, it cannot be imported, or it is not
            an acquisition.
    """
    points = entry_points(group=_ENTRY_POINTS, name=name)
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
    if stages.prompts is not None and not stages.prompts.needs.isdisjoint(_OF_COMPLETIONS):
        raise md.InputError(
            f"acquisition: {point.name!r} must choose prompts without "
            f"{' and '.join(sorted(_OF_COMPLETIONS))}, which only completions have"
        )
    return stages
