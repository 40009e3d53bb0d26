"""Arguments of the estimators as arrays of class numbers.

Users write class labels as numbers or names. A missing label, and an abstain, is -1 (or "-1" among
strings).

Shapes: N rows, K labeling functions, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import modicum as md
from modicum_algorithms.weak.data.votes import UNKNOWN


def given(labels: np.ndarray) -> np.ndarray:
    """Mask of the labels or votes that are not -1, bool of the same shape."""
    if labels.dtype.kind in "US":
        return np.asarray(labels != labels.dtype.type(str(UNKNOWN)))
    if labels.dtype.kind == "O":
        return np.asarray((labels != UNKNOWN) & (labels != str(UNKNOWN)), dtype=bool)
    return np.asarray(labels != UNKNOWN)


def distinct(labels: np.ndarray, name: str) -> np.ndarray:
    """The classes that occur, sorted, without -1.

    Raises:
        InputError: The labels have types that cannot be sorted; the message names the argument.
    """
    try:
        return np.unique(labels[given(labels)])
    except TypeError as error:
        raise md.InputError(
            f"{name}: class labels must be all strings or all numbers; -1, not None, marks a "
            "missing one"
        ) from error


def class_numbers(labels: np.ndarray, classes_C: np.ndarray, name: str) -> np.ndarray:
    """Positions of labels among the classes, int64 of the same shape; -1 stays -1.

    Args:
        labels: Labels (N,) or votes (N, K).
        classes_C: The classes, sorted.
        name: Name of the argument, for the error message.

    Raises:
        InputError: A label is not one of the classes.
    """
    known = given(labels)
    found = distinct(labels, name)
    numbers: dict[Any, int] = {label: number for number, label in enumerate(classes_C.tolist())}
    for label in found.tolist():
        if label not in numbers:
            raise md.InputError(
                f"{name}: {label!r} is not one of the classes {classes_C.tolist()}; -1 marks a "
                "missing one, and the parameter classes names classes that y lacks"
            )
    result = np.full(labels.shape, UNKNOWN, dtype=np.int64)
    if len(found):
        lookup = np.array([numbers[label] for label in found.tolist()])
        result[known] = lookup[np.searchsorted(found, labels[known])]
    return result


def read_votes(weak_labels: Any, rows: int) -> tuple[np.ndarray, list[str | int]]:
    """Votes as a table of class labels, and the names of the labeling functions.

    Args:
        weak_labels: Table of shape (N, K), or None if there are no labeling functions.
        rows: N.

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
