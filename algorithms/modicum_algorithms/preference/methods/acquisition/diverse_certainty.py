"""Acquisition of certain pairs with diverse prompts (proposed in section 6.6)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modicum_algorithms.preference.methods.acquisition.candidates import Candidates
from modicum_algorithms.preference.methods.acquisition.certainty import certainty


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
