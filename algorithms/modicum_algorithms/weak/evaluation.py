"""Accuracy and F1.

The F1 of the thesis is accuracy (micro-F1): its constant rows equal majority-class accuracies. Both
metrics are reported here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scores:
    """Scores of predictions.

    Attributes:
        accuracy: Share of right predictions.
        f1: F1 of class 1 if there are two classes, else the macro mean.
    """

    accuracy: float
    f1: float


def score(labels_N: np.ndarray, predicted_N: np.ndarray, classes: int) -> Scores:
    """Accuracy and F1 of predictions.

    F1 of a class that is neither present nor predicted counts as 0, as in scikit-learn with
    `zero_division=0`.
    """
    table = np.bincount(labels_N * classes + predicted_N, minlength=classes * classes)
    table = table.reshape(classes, classes)
    hits = np.diag(table)
    both = table.sum(0) + table.sum(1)
    f1 = np.divide(2 * hits, both, out=np.zeros(classes), where=both > 0)
    return Scores(
        accuracy=float(hits.sum() / len(labels_N)),
        f1=float(f1[1] if classes == 2 else f1.mean()),
    )
