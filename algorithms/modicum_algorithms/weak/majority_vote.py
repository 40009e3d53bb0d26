"""Majority vote: train the end model on normalised vote counts (two-stage baseline).

Strong labels join as one more vote (-V) or replace the denoised label (-S), appendix A.1.

Shapes: N rows, K labeling functions, C classes.
"""

from __future__ import annotations

import numpy as np


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


def soft_labels(
    votes_NK: np.ndarray,
    classes: int,
    strong: np.ndarray,
    labels_N: np.ndarray,
    how: str,
) -> np.ndarray:
    """Majority vote with strong labels taken into account.

    Args:
        votes_NK: Votes, -1 is an abstain.
        classes: Number of classes.
        strong: Row numbers whose label is known.
        labels_N: Labels, read at those rows only.
        how: `vote` adds a labeling function that knows the strong labels, `replace` puts the
            strong label in the place of the vote.

    Returns:
        Soft labels, shape (N, C), float32.
    """
    if how == "vote":
        extra_N1 = np.full((len(votes_NK), 1), -1, dtype=votes_NK.dtype)
        extra_N1[strong, 0] = labels_N[strong]
        return majority_vote(np.concatenate([votes_NK, extra_N1], axis=1), classes)
    soft_NC = majority_vote(votes_NK, classes)
    soft_NC[strong] = np.eye(classes, dtype=np.float32)[labels_N[strong]]
    return soft_NC


def covered(votes_NK: np.ndarray) -> np.ndarray:
    """Which rows have at least one vote."""
    return np.asarray((votes_NK >= 0).any(axis=1))
