"""Arguments of the estimators as arrays of class numbers.

Users write class labels as numbers or names. A missing label, and an abstain, is -1 (or "-1" among
strings).

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
from modicum_algorithms.weak.data.supervision import Supervision


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
    """Read the arguments of `WeakClassifier.fit`.

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
    labels = np.full(len(X), md.data.UNKNOWN) if y is None else y
    votes, functions = read_votes(weak_labels, len(X))
    in_labels, in_votes = _distinct(labels, "y"), _distinct(votes, "weak_labels")
    if len(in_labels):
        check_classification_targets(labels[_given(labels)])
    elif labels_alone or not len(in_votes):
        missing = "y" if labels_alone else "y or votes in weak_labels"
        raise md.InputError(f"y: {estimator} needs class labels in {missing}, got none")
    if classes is not None:
        classes_C = _distinct(np.asarray(classes), "classes")
    else:
        classes_C = in_labels if len(in_labels) else in_votes
    supervision = Supervision(
        as_tensor(X),
        votes_NK=class_numbers(votes, classes_C, "weak_labels"),
        labels_N=class_numbers(labels, classes_C, "y"),
        classes=len(classes_C),
    )
    return TrainingArguments(supervision, classes_C, functions)


def read_votes(weak_labels: Any, rows: int) -> tuple[np.ndarray, list[str | int]]:
    """Votes as a table of class labels, (N, K), and the names of the labeling functions.

    Raises:
        InputError: The table does not have N rows.
    """
    if weak_labels is None:
        return np.empty((rows, 0), dtype=np.int64), []
    votes = np.asarray(weak_labels)
    if votes.ndim != 2 or len(votes) != rows:
        raise md.InputError(
            f"weak_labels: must have {rows} rows, as X, and a column for each labeling function, "
            f"got shape {votes.shape}"
        )
    names = getattr(weak_labels, "columns", range(votes.shape[1]))
    return votes, list(names)


def class_numbers(labels: np.ndarray, classes_C: np.ndarray, name: str) -> np.ndarray:
    """Positions of labels or votes among the sorted classes, int64 of the same shape; -1 stays -1.

    Raises:
        InputError: A label is not one of the classes; the message has the argument's name.
    """
    known = _given(labels)
    found = _distinct(labels, name)
    numbers: dict[Any, int] = {label: number for number, label in enumerate(classes_C.tolist())}
    for label in found.tolist():
        if label not in numbers:
            raise md.InputError(
                f"{name}: {label!r} is not one of the classes {classes_C.tolist()}; -1 marks a "
                "missing one, and the parameter classes names classes that y lacks"
            )
    result = np.full(labels.shape, md.data.UNKNOWN, dtype=np.int64)
    if len(found):
        lookup = np.array([numbers[label] for label in found.tolist()])
        result[known] = lookup[np.searchsorted(found, labels[known])]
    return result


def as_tensor(array: np.ndarray) -> Tensor:
    """An array as a float32 tensor; copied only where it is read-only, which torch warns of."""
    return torch.from_numpy(np.require(array, np.float32, ["C", "W"]))


def _given(labels: np.ndarray) -> np.ndarray:
    """Mask of the labels or votes that are not -1, bool of the same shape."""
    unknown = md.data.UNKNOWN
    if labels.dtype.kind in "US":
        return np.asarray(labels != labels.dtype.type(str(unknown)))
    if labels.dtype.kind == "O":
        return np.asarray((labels != unknown) & (labels != str(unknown)), dtype=bool)
    return np.asarray(labels != unknown)


def _distinct(labels: np.ndarray, name: str) -> np.ndarray:
    """The classes that occur, sorted, without -1.

    Raises:
        InputError: The labels have types that cannot be sorted; the message names the argument.
    """
    try:
        return np.unique(labels[_given(labels)])
    except TypeError as error:
        raise md.InputError(
            f"{name}: class labels must be all strings or all numbers; -1, not None, marks a "
            "missing one"
        ) from error
