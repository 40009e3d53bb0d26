"""Acquisition by the certainty of the implicit preference model, and its variations."""

from __future__ import annotations

import numpy as np

from modicum_algorithms.preference.methods.acquisition.candidates import Candidates


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
