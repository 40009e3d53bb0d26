"""Which pairs of completions to ask the oracle about (section 6.3.1), and the pool of prompts.

A round of algorithm 2 draws prompts from the pool and may keep only the best of them before pairs
of completions are generated; an acquisition then chooses those that the oracle is asked about.

Shapes: S candidates (a prompt, or a prompt with two completions), N samples, D dimensions of an
embedding, K chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, Protocol

import numpy as np

import modicum as md

ACQUISITIONS = "modicum.acquisitions"
_FIELDS = {
    "entropy": "sample_log_probabilities_SN",
    "rewards": "implicit_rewards_S2",
    "embeddings": "embeddings_SD",
    "costs": "costs_S",
}
QUANTITIES = frozenset(_FIELDS)
# What exists only once completions have been generated.
_OF_COMPLETIONS = frozenset({"rewards", "costs"})


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """What is known of the candidates; a quantity that no acquisition needs may be left out.

    Attributes:
        size: S, how many there are.
        sample_log_probabilities_SN: `"entropy"`: log pθ(yⁿ|x) of samples yⁿ ~ pθ(y|x), each the sum
            over the completion's tokens, in nats.
        implicit_rewards_S2: `"rewards"`: r̂ = β (log pθ − log pθ0) of both completions (equation
            6.5 with its log). While θ = θ0 they must be exactly 0: rounding errors grow with
            length, so ranking them would favour long completions.
        embeddings_SD: `"embeddings"`: vectors of the prompts, close where prompts are alike.
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
            ValueError: It was left out.
        """
        array = getattr(self, _FIELDS[name])
        if array is None:
            raise ValueError(f"{_FIELDS[name]}: the acquisition needs it")
        return np.asarray(array, np.float64)


class Acquisition(Protocol):
    """Chooses among candidates.

    Attributes:
        needs: Those of `QUANTITIES` that it looks at.
    """

    @property
    def needs(self) -> frozenset[str]:
        """Those of `QUANTITIES` that it looks at."""

    def choose(
        self, candidates: Candidates, count: int, generator: np.random.Generator
    ) -> np.ndarray:
        """The places of the chosen candidates, distinct, best first, (K,).

        Args:
            candidates: With all that it needs.
            count: K, from 1 to the number of candidates.
            generator: Decides between candidates that are equally good.
        """


def choose(
    acquisition: Acquisition, candidates: Candidates, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Let an acquisition choose, and hold it to what it promises.

    Args:
        acquisition: Built in or a user's.
        candidates: With all that it needs.
        count: How many to choose; all of them if there are fewer.
        generator: Decides between candidates that are equally good.

    Returns:
        The places of the chosen candidates, distinct, best first, (K,).

    Raises:
        ValueError: `count` is below 1, a needed quantity was left out, or the acquisition's answer
            is not as many distinct places.
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
    """The places of the highest scores, best first, (K,); equal scores in random order.

    Args:
        scores_S: Finite.
        count: K; all of them if there are fewer.
        generator: Decides between equal scores.

    Raises:
        ValueError: A score is NaN or infinite.
    """
    if not np.isfinite(scores_S).all():
        raise ValueError("scores: all must be finite")
    shuffled_S = generator.permutation(len(scores_S))
    return shuffled_S[np.argsort(-scores_S[shuffled_S], kind="stable")][:count]


# Scores: a candidate with a higher one is chosen first.


def entropy(candidates: Candidates) -> np.ndarray:
    """Predictive entropy H[pθ(y|x)] of every prompt by Monte Carlo, in nats, (S,)."""
    return -candidates.quantity("entropy").mean(1)  # equation 6.8


def certainty(candidates: Candidates) -> np.ndarray:
    """How far apart the implicit rewards of the two completions are, (S,)."""
    first_S, second_S = candidates.quantity("rewards").T
    return np.abs(first_S - second_S)  # equation 6.9


def uncertainty(candidates: Candidates) -> np.ndarray:
    """Certainty with the opposite sign, (S,): uncertainty sampling under Bradley–Terry."""
    return -certainty(candidates)


def certainty_per_cost(candidates: Candidates) -> np.ndarray:
    """Certainty for each unit of the oracle's price, (S,)."""
    return certainty(candidates) / candidates.quantity("costs")


@dataclass(frozen=True)
class Random:
    """Every subset with the same probability."""

    needs: frozenset[str] = frozenset()

    def choose(
        self, candidates: Candidates, count: int, generator: np.random.Generator
    ) -> np.ndarray:
        """See `Acquisition`."""
        return generator.permutation(candidates.size)[:count]


@dataclass(frozen=True)
class Highest:
    """The candidates with the highest scores.

    Attributes:
        score: Of every candidate, (S,).
        needs: What the score looks at.
    """

    score: Callable[[Candidates], np.ndarray]
    needs: frozenset[str]

    def choose(
        self, candidates: Candidates, count: int, generator: np.random.Generator
    ) -> np.ndarray:
        """See `Acquisition`."""
        return best(self.score(candidates), count, generator)


@dataclass(frozen=True)
class DiverseCertainty:
    """Certain pairs whose prompts are unlike each other.

    One by one, the candidate is chosen that has the highest weighted mean of its certainty and its
    distance to the nearest prompt chosen before, each divided by its largest value among those
    left. With all weight on the distance it is k-centre greedy (Sener and Savarese 2018).

    Attributes:
        certainty_weight: Of certainty, from 0 to 1; the rest is the distance's.
    """

    certainty_weight: float = 0.5
    needs: frozenset[str] = frozenset({"rewards", "embeddings"})

    def choose(
        self, candidates: Candidates, count: int, generator: np.random.Generator
    ) -> np.ndarray:
        """See `Acquisition`."""
        shuffled_S = generator.permutation(candidates.size)  # of equal scores, the first is taken
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
    """Values as shares of the largest one that is left; all 0 where that is 0."""
    largest = float(values_S[left_S].max())
    return values_S / largest if largest > 0 else np.zeros_like(values_S)


@dataclass(frozen=True)
class Stages:
    """An acquisition, and what it is preceded by.

    Attributes:
        pairs: Chooses what the oracle is asked about.
        prompts: Chooses S of J × S prompts before anything is generated for them; None where S
            prompts are drawn at once.
    """

    pairs: Acquisition
    prompts: Acquisition | None = None

    @property
    def needs_completions(self) -> bool:
        """Whether pairs must be generated for all S prompts, not just for the chosen ones."""
        return not self.pairs.needs.isdisjoint(_OF_COMPLETIONS)

    def prompts_to_draw(self, kept: int, factor: int, left: int) -> int:
        """How many prompts a round draws: J × S, or S where no stage narrows them down.

        Args:
            kept: S, prompts that pairs are chosen from.
            factor: J.
            left: In the pool; all of them are drawn if there are fewer.
        """
        return min(left, kept if self.prompts is None else factor * kept)


_ENTROPY = Highest(entropy, frozenset({"entropy"}))
_CERTAINTY = Highest(certainty, frozenset({"rewards"}))
BUILT_IN: Mapping[str, Stages] = {
    "random": Stages(Random()),
    "entropy": Stages(_ENTROPY),
    "certainty": Stages(_CERTAINTY),
    "entropy_certainty": Stages(_CERTAINTY, prompts=_ENTROPY),
    "low_certainty": Stages(Highest(uncertainty, frozenset({"rewards"}))),
    "diverse_certainty": Stages(DiverseCertainty()),
    "certainty_per_cost": Stages(Highest(certainty_per_cost, frozenset({"rewards", "costs"}))),
}


def acquisition_names() -> list[str]:
    """Names of the acquisitions that are built in or that packages register."""
    return sorted({*BUILT_IN, *entry_points(group=ACQUISITIONS).names})


def get_acquisition(name: str) -> Stages:
    """The acquisition of a name.

    Packages add their own through the entry-point group `modicum.acquisitions`: an `Acquisition`
    or `Stages`, or a class or function that makes one without arguments.

    Raises:
        InputError: There is none of that name, it cannot be imported, or it is not an acquisition.
    """
    points = entry_points(group=ACQUISITIONS, name=name)
    offers = len(points) + (name in BUILT_IN)
    if offers == 0:
        allowed = ", ".join(acquisition_names())
        raise md.InputError(f"acquisition: must be one of {allowed}, got {name!r}")
    if offers > 1:
        raise md.InputError(f"acquisition: {name!r} must be one acquisition's, {offers} have it")
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


@dataclass(frozen=True)
class Pool:
    """Prompts that are left, by their place in the data; sampling is without replacement.

    Attributes:
        size: Prompts at the start.
        removes: What a round takes out: the prompts that were acquired, or all that were drawn.
        gone: Prompts that were taken out.
    """

    size: int
    removes: Literal["acquired", "drawn"] = "acquired"
    gone: frozenset[int] = frozenset()

    @property
    def left(self) -> int:
        """How many prompts there still are."""
        return self.size - len(self.gone)

    def draw(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Distinct prompts at random, all of them if there are fewer; nothing is taken out."""
        left = np.array([place for place in range(self.size) if place not in self.gone], np.int64)
        return generator.permutation(left)[:count]

    def after(self, drawn: Iterable[int], acquired: Iterable[int]) -> Pool:
        """The pool after a round.

        Args:
            drawn: Prompts that the round drew.
            acquired: Those of them that were judged.

        Raises:
            ValueError: A prompt was not in the pool, or was acquired without being drawn.
        """
        drawn, acquired = frozenset(map(int, drawn)), frozenset(map(int, acquired))
        if not (drawn.isdisjoint(self.gone) and drawn <= frozenset(range(self.size))):
            raise ValueError("drawn: all prompts must be in the pool")
        if not acquired <= drawn:
            raise ValueError("acquired: all prompts must have been drawn")
        return replace(self, gone=self.gone | (acquired if self.removes == "acquired" else drawn))

    def state(self) -> dict[str, Any]:
        """The pool as JSON; `Pool.resume` makes it again."""
        return {"size": self.size, "removes": self.removes, "gone": sorted(self.gone)}

    @classmethod
    def resume(cls, state: Mapping[str, Any]) -> Pool:
        """The pool of a `state`."""
        return cls(state["size"], state["removes"], frozenset(state["gone"]))
