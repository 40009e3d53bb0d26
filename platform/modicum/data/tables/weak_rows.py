"""Rows with votes of labeling functions, the result of every reader.

Shapes: N rows, D features, K labeling functions, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from modicum.errors import InputError

SPLITS = ("train", "valid", "test")
"""Names of the splits of a data set with votes."""

ABSTAIN = -1
"""The vote of a labeling function that does not vote."""

UNKNOWN = -1
"""A label that is not given."""


@dataclass(frozen=True)
class WeakSplit:
    """One split.

    Attributes:
        labels_N: True classes, int64; -1 for unknown.
        votes_NK: Votes of the labeling functions, int64; -1 for an abstention.
        texts: Texts, or None if the rows have none.
        features_ND: Features, float32, or None if the rows have none.
    """

    labels_N: np.ndarray
    votes_NK: np.ndarray
    texts: list[str] | None
    features_ND: np.ndarray | None


@dataclass(frozen=True)
class WeakRows:
    """A data set as it was read, before features are computed.

    Attributes:
        classes: Names of the C classes.
        labeling_functions: Names of the K labeling functions; "0", "1", ... if the format has
            no names.
        splits: The splits `train`, `valid` and `test`.
    """

    classes: tuple[str, ...]
    labeling_functions: tuple[str, ...]
    splits: Mapping[str, WeakSplit]


def check_weak_rows(rows: WeakRows, where: str) -> WeakRows:
    """Check what holds between the columns and the splits; readers have checked every value.

    Raises:
        InputError: There are fewer than two classes, a label is missing outside the training
            split, or splits have different widths.
    """
    if len(rows.classes) < 2:
        raise InputError(f"dataset: {where} names {len(rows.classes)} class; two are needed")
    for name, split in rows.splits.items():
        if name != "train" and (split.labels_N == UNKNOWN).any():
            row = int(np.argmax(split.labels_N == UNKNOWN))
            raise InputError(
                f"dataset: {where}: every row of {name} needs a label, row {row} has none"
            )
    votes = {name: split.votes_NK.shape[1] for name, split in rows.splits.items()}
    if len(set(votes.values())) > 1:
        raise InputError(f"dataset: {where}: splits differ in labeling functions: {votes}")
    widths = {
        name: split.features_ND.shape[1]
        for name, split in rows.splits.items()
        if split.features_ND is not None
    }
    if len(set(widths.values())) > 1:
        raise InputError(f"dataset: {where}: splits differ in the number of features: {widths}")
    return rows
