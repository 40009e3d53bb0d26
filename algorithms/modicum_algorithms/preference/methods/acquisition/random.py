"""Acquisition at random: the baseline, which is plain DPO."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modicum_algorithms.preference.methods.acquisition.candidates import Candidates


@dataclass(frozen=True)
class Random:
    """Acquisition of a uniformly random subset."""

    needs: frozenset[str] = frozenset()

    def choose(
        self, candidates: Candidates, count: int, generator: np.random.Generator
    ) -> np.ndarray:
        """See `Acquisition`."""
        return generator.permutation(candidates.size)[:count]
