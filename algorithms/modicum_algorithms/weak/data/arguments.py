"""Arguments of the estimators' `fit` as a training set.

Shapes: N rows, D features, K labeling functions, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

import modicum as md
from modicum_algorithms.weak.data.class_labels import class_numbers, distinct, given, read_votes
from modicum_algorithms.weak.data.supervision import Supervision
from modicum_algorithms.weak.data.votes import UNKNOWN


@dataclass(frozen=True)
class TrainingArguments:
    """A training set, and the names that it does not hold.

    Attributes:
        supervision: Features, votes and labels as class numbers.
        classes: The classes, sorted, (C,).
        functions: Names of the labeling functions, or their numbers.
    """

    supervision: Supervision
    classes: np.ndarray
    functions: list[str | int]


def read_arguments(
    X: np.ndarray,
    y: np.ndarray | None,
    weak_labels: Any,
    classes: Sequence[Any] | None,
    *,
    estimator: str,
    labels_alone: bool,
) -> TrainingArguments:
    """Read features, class labels and votes.

    Args:
        X: Features, (N, D), float32.
        y: Class labels, (N,), -1 where unknown; None if all are unknown.
        weak_labels: Votes, (N, K), -1 for an abstain; None if there are none.
        classes: The classes; None to take them from y, or from the votes if y has no label.
        estimator: Name of the estimator, for the error message.
        labels_alone: True for an estimator that learns from class labels alone.

    Raises:
        InputError: An argument is wrong; the message names it.
    """
    labels = np.full(len(X), UNKNOWN) if y is None else y
    votes, functions = read_votes(weak_labels, len(X))
    in_labels, in_votes = distinct(labels, "y"), distinct(votes, "weak_labels")
    if len(in_labels):
        check_classification_targets(labels[given(labels)])
    if not len(in_labels) and (labels_alone or not len(in_votes)):
        missing = "y" if labels_alone else "y or votes in weak_labels"
        raise md.InputError(f"y: {estimator} needs class labels in {missing}, got none")
    if classes is not None:
        classes_C = distinct(np.asarray(classes), "classes")
    else:
        classes_C = in_labels if len(in_labels) else in_votes
    supervision = Supervision(
        as_tensor(X),
        votes_NK=class_numbers(votes, classes_C, "weak_labels"),
        labels_N=class_numbers(labels, classes_C, "y"),
        classes=len(classes_C),
    )
    return TrainingArguments(supervision, classes_C, functions)


def as_tensor(array: np.ndarray) -> Tensor:
    """An array as a float32 tensor; copied only where it is read-only, which torch warns of."""
    return torch.from_numpy(np.require(array, np.float32, ["C", "W"]))
