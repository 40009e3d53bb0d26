"""Votes of labeling functions: how missing ones are marked, and the majority vote.

Shapes: N rows, K labeling functions, C classes.
"""

from __future__ import annotations

import numpy as np

ABSTAIN = -1  # a labeling function that does not vote
UNKNOWN = -1  # a label that is not given


def majority_vote(votes_NK: np.ndarray, classes: int) -> np.ndarray:
    """Normalised vote counts; uniform where every labeling function abstains.

    Args:
        votes_NK: Votes, -1 is an abstain.
        classes: Number of classes.

    Returns:
        Soft labels, shape (N, C), float32.
    """
    rows = np.arange(len(votes_NK))[:, None]
    # Abstains (-1) fall into the bin before the row's first class and are cut off.
    bins = (rows * (classes + 1) + votes_NK + 1).ravel()
    counts = np.bincount(bins, minlength=len(votes_NK) * (classes + 1))
    counts_NC = counts.reshape(len(votes_NK), classes + 1)[:, 1:]
    totals_N1 = counts_NC.sum(1, keepdims=True)
    uniform = np.full_like(counts_NC, 1 / classes, dtype=np.float64)
    return np.divide(counts_NC, totals_N1, out=uniform, where=totals_N1 > 0).astype(np.float32)
