"""What a method learns from: features, votes, and the labels that are known.

Shapes: N rows, D features, K labeling functions, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

UNKNOWN = -1  # a label that is not given
ABSTAIN = -1  # a labeling function that does not vote


@dataclass(frozen=True)
class Supervision:
    """A training set with weak labels and, on some rows, strong ones.

    Attributes:
        features_ND: float32.
        votes_NK: int64 class numbers, -1 is an abstain; K may be 0.
        labels_N: int64 class numbers, -1 where the label is unknown.
        classes: Number of classes C.
    """

    features_ND: Tensor
    votes_NK: np.ndarray
    labels_N: np.ndarray
    classes: int

    def __len__(self) -> int:
        return len(self.labels_N)

    @cached_property
    def strong(self) -> np.ndarray:
        """Row numbers whose label is known (the set S)."""
        return np.flatnonzero(self.labels_N != UNKNOWN)

    @cached_property
    def covered(self) -> np.ndarray:
        """Which rows have at least one vote, bool (N,)."""
        return np.asarray((self.votes_NK != ABSTAIN).any(axis=1))

    @cached_property
    def with_strong_votes(self) -> np.ndarray:
        """Votes with one more labeling function that knows the strong labels (-V, A.1).

        Without any strong label there is no such function.
        """
        if len(self.strong) == 0:
            return self.votes_NK
        extra_N1 = self.labels_N[:, None].astype(self.votes_NK.dtype)
        return np.concatenate([self.votes_NK, extra_N1], axis=1)
