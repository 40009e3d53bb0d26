"""The data that a method learns from: features, votes, and the labels that are known.

Shapes: N rows, D features, K labeling functions, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

import modicum as md


@dataclass(frozen=True)
class Supervision:
    """A training set with weak labels and, on some rows, strong ones.

    Attributes:
        features_ND: float32.
        votes_NK: int64 class numbers, -1 is an abstain; K may be 0.
        labels_N: int64 class numbers, -1 where the label is unknown.
        classes: Number of classes C.
        class_balance_C: Class balance p(y), all entries above 0; None for a uniform one.
    """

    features_ND: Tensor
    votes_NK: np.ndarray
    labels_N: np.ndarray
    classes: int
    class_balance_C: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels_N)

    @cached_property
    def balance(self) -> np.ndarray:
        """Class balance p(y), float64; uniform where none is known."""
        if self.class_balance_C is None:
            return np.full(self.classes, 1 / self.classes)
        return self.class_balance_C

    @cached_property
    def strong(self) -> np.ndarray:
        """Row numbers with a known label (the set S)."""
        return np.flatnonzero(self.labels_N != md.data.UNKNOWN)

    @cached_property
    def covered(self) -> np.ndarray:
        """Mask of the rows with at least one vote, bool (N,)."""
        return np.asarray((self.votes_NK != md.data.ABSTAIN).any(axis=1))

    @cached_property
    def with_strong_votes(self) -> np.ndarray:
        """Votes with the strong labels as one more labeling function (-V, A.1), (N, K + 1).

        Without any strong label the votes stay as they are.
        """
        if len(self.strong) == 0:
            return self.votes_NK
        extra_N1 = self.labels_N[:, None].astype(self.votes_NK.dtype)
        return np.concatenate([self.votes_NK, extra_N1], axis=1)

    def with_strong_labels(self, soft_NC: np.ndarray) -> np.ndarray:
        """A copy of soft labels in which every known label has probability 1, (N, C)."""
        soft_NC = soft_NC.copy()
        soft_NC[self.strong] = np.eye(self.classes, dtype=soft_NC.dtype)[self.labels_N[self.strong]]
        return soft_NC


@dataclass(frozen=True)
class ValidationSet:
    """Labelled rows for early stopping.

    Attributes:
        features_ND: float32.
        labels_N: int64 class numbers, all known.
    """

    features_ND: Tensor
    labels_N: np.ndarray

    def class_balance(self, classes: int) -> np.ndarray:
        """Share of each class, (C,), a class without rows counted as one with one row."""
        # Methods need every class to be possible.
        counts_C = np.bincount(self.labels_N, minlength=classes).clip(min=1)
        return np.asarray(counts_C / counts_C.sum())
