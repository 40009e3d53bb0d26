"""Acquisition by the predictive entropy of the language model."""

from __future__ import annotations

import numpy as np

from modicum_algorithms.preference.methods.acquisition.candidates import Candidates


def entropy(candidates: Candidates) -> np.ndarray:
    """Monte Carlo estimate of the predictive entropy H[pθ(y|x)] of each prompt, in nats, (S,)."""
    return -candidates.quantity("entropy").mean(1)  # equation 6.8
