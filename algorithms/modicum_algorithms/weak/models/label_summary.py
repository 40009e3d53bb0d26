"""A trained method's account of the labeling functions.

Shapes: N rows, K labeling functions, C classes, V = C + 1 outcomes of a vote, abstain last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

import modicum as md
from modicum_algorithms.weak.labeling import conflicts


@dataclass(frozen=True, eq=False)
class LabelModelSummary:
    """Estimates of how the labeling functions vote, by a trained method.

    Attributes:
        names: Names of the labeling functions, or their numbers.
        transitions: p(ỹ_k = v | y = c), (K, V, C): learned by the method, else counted against
            its denoised labels.
        class_balance: p(y = c), (C,): mean of the denoised labels of the training rows.
        coverage: Fraction of rows that each function votes on, (K,).
        conflict: Fraction of rows on which a function votes and another one votes for another
            class, (K,).
    """

    names: Sequence[str | int]
    transitions: np.ndarray
    class_balance: np.ndarray
    coverage: np.ndarray
    conflict: np.ndarray

    @property
    def accuracy(self) -> np.ndarray:
        """Probability that a function's vote is right given that it votes, (K,).

        Σ_c p(y = c) p(ỹ_k = c | c) / Σ_c p(y = c) p(ỹ_k ≠ abstain | c); NaN for a function
        that never votes.
        """
        joint_KVC = self.transitions[:, :-1] * self.class_balance
        right_K = np.einsum("kcc->k", joint_KVC)
        votes_K = joint_KVC.sum((1, 2))
        known_K = (self.coverage > 0) & (votes_K > 0)
        return np.divide(right_K, votes_K, out=np.full(len(right_K), np.nan), where=known_K)

    @property
    def table(self) -> pd.DataFrame:
        """One row per labeling function: accuracy, coverage, conflict."""
        return pd.DataFrame(
            {"accuracy": self.accuracy, "coverage": self.coverage, "conflict": self.conflict},
            index=pd.Index(list(self.names), name="labeling_function"),
        )


def describe_votes(
    votes_NK: np.ndarray,
    denoised_NC: np.ndarray,
    transitions_VKC: np.ndarray | None,
    names: Sequence[str | int],
) -> LabelModelSummary:
    """Summarise a method's estimates of the labeling functions.

    The soft labels are those of the rows with the votes. Without transitions p(ỹ_k = v | y = c) of
    the method they are counted.
    """
    if transitions_VKC is None:
        transitions_VKC = counted_transitions(votes_NK, denoised_NC)
    return LabelModelSummary(
        names=names,
        transitions=np.ascontiguousarray(transitions_VKC.transpose(1, 0, 2)),
        class_balance=denoised_NC.mean(0),
        coverage=(votes_NK != md.data.ABSTAIN).mean(0),
        conflict=conflicts(votes_NK),
    )


def counted_transitions(votes_NK: np.ndarray, soft_NC: np.ndarray) -> np.ndarray:
    """p(ỹ_k = v | y = c) = Σ_n q_n(c) 1[ỹ_nk = v] / Σ_n q_n(c), with abstain as the last outcome.

    Shape (C + 1, K, C). A class without any weight gets the uniform distribution.
    """
    classes = soft_NC.shape[1]
    weights_NC = soft_NC.astype(np.float64)
    counts_VKC = np.stack(
        [(votes_NK == v).T @ weights_NC for v in [*range(classes), md.data.ABSTAIN]]
    )
    uniform_VKC = np.full(counts_VKC.shape, 1 / (classes + 1))
    totals_C = weights_NC.sum(0)
    return np.divide(counts_VKC, totals_C, out=uniform_VKC, where=totals_C > 0)
