"""Which rows to label next: scores of a pool of rows, and the choice of the best.

Scores are in nats; a higher one is a better row to ask about.

Shapes: N rows, C classes, M members of an ensemble.
"""

from __future__ import annotations

import numpy as np
from scipy.special import entr, rel_entr


def entropy(probabilities_NC: np.ndarray) -> np.ndarray:
    """H[p] = −Σ_y p(y) log p(y) of every row, (N,), from 0 to log C.

    Uncertainty sampling (Lewis and Gale 1994) in the form for several classes.

    Args:
        probabilities_NC: p, rows sum to 1.
    """
    return np.asarray(entr(probabilities_NC.astype(np.float64)).sum(1))


def jensen_shannon(first_NC: np.ndarray, second_NC: np.ndarray) -> np.ndarray:
    """JS(p, r) = KL(p ‖ m)/2 + KL(r ‖ m)/2 with m = (p + r)/2, of every row, (N,).

    From 0, where the two agree, to log 2, where neither thinks possible what the other does
    (Lin 1991).

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

    What the label of a row is expected to tell of the model's parameters (BALD; Houlsby et al.
    2011), where independently initialised fits stand for draws of them (Lakshminarayanan et al.
    2017). 0 where all members agree, at most log C.

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
        scores_N: Their scores.
        count: How many; all of them if there are fewer.
    """
    return rows_N[np.argsort(-scores_N, kind="stable")[:count]]
