"""Candidates of an acquisition, and the choice among them.

Shapes: S candidates, N samples, D dimensions of an embedding, K chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

_FIELDS = {
    "entropy": "sample_log_probabilities_SN",
    "rewards": "implicit_rewards_S2",
    "embeddings": "embeddings_SD",
    "costs": "costs_S",
}
QUANTITIES = frozenset(_FIELDS)
# Quantities that exist only once completions have been generated.
OF_COMPLETIONS = frozenset({"rewards", "costs"})


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
    """A rule that chooses among candidates.

    Attributes:
        needs: The subset of `QUANTITIES` that the rule uses.
    """

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


@dataclass(frozen=True)
class Highest:
    """Acquisition of the candidates with the highest scores.

    Attributes:
        score: Function that scores every candidate, (S,).
        needs: Quantities that the score uses.
    """

    score: Callable[[Candidates], np.ndarray]
    needs: frozenset[str]

    def choose(
        self, candidates: Candidates, count: int, generator: np.random.Generator
    ) -> np.ndarray:
        """See `Acquisition`."""
        return best(self.score(candidates), count, generator)


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
