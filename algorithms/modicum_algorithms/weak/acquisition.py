"""Acquisition functions of active learning: scores of rows, and the choice of the best.

Scores are in nats; a higher one is a better row to label.

Shapes: N rows, C classes, M members of an ensemble.
"""

from __future__ import annotations

import numpy as np
from scipy.special import entr, rel_entr


def entropy(probabilities_NC: np.ndarray) -> np.ndarray:
    """Entropy H[p] = −Σ_y p(y) log p(y) of every row, (N,), from 0 to log C.

    Uncertainty sampling (Lewis and Gale 1994) in the form for several classes.

    Args:
        probabilities_NC: p, rows sum to 1.
    """
    return np.asarray(entr(probabilities_NC.astype(np.float64)).sum(1))


def jensen_shannon(first_NC: np.ndarray, second_NC: np.ndarray) -> np.ndarray:
    """JS(p, r) = KL(p ‖ m)/2 + KL(r ‖ m)/2 with m = (p + r)/2, of every row, (N,).

    The Jensen–Shannon divergence (Lin 1991): 0 if the two are equal, log 2 if their supports are
    disjoint.

    Args:
        first_NC: p, rows sum to 1.
        second_NC: r, rows sum to 1.
    """
    first_NC, second_NC = first_NC.astype(np.float64), second_NC.astype(np.float64)
    middle_NC = (first_NC + second_NC) / 2
    total_NC = rel_entr(first_NC, middle_NC) + rel_entr(second_NC, middle_NC)
    return np.asarray(total_NC.sum(1).clip(min=0) / 2)


def information_gain(posteriors_MNC: np.ndarray) -> np.ndarray:
    """I(y; parameters | x, ỹ) = H[mean_m q_m] − mean_m H[q_m] of every row, (N,).

    Expected information that the row's label gives about the model's parameters (BALD; Houlsby et
    al. 2011), with independently initialised fits as samples of the parameters (Lakshminarayanan et
    al. 2017). From 0, where all members agree, to log C.

    Args:
        posteriors_MNC: q_m(y) of every member, the last dimension sums to 1.
    """
    of_mean_N = entropy(posteriors_MNC.astype(np.float64).mean(0))
    mean_N = np.mean([entropy(posterior_NC) for posterior_NC in posteriors_MNC], axis=0)
    return np.asarray((of_mean_N - mean_N).clip(min=0))


def best_rows(rows_N: np.ndarray, scores_N: np.ndarray, count: int) -> np.ndarray:
    """The rows with the highest scores, best first; among equal scores, those that come first.

    Args:
        rows_N: Row numbers.
        scores_N: Score of each row.
        count: Number of rows to choose; all rows if there are fewer.
    """
    return rows_N[np.argsort(-scores_N, kind="stable")[:count]]
