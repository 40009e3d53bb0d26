"""The experiment `weak_data`: attributes of a data set and of its weak labels (table 3.1).

Shapes: N rows, K labeling functions, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

import modicum as md
from modicum_algorithms.weak.config import WeakDataConfig
from modicum_algorithms.weak.data import datasets


class WeakDataAttributes(md.Experiment[WeakDataConfig]):
    """Sizes, coverage and conflict of a weakly labeled data set; no labels are spent."""

    name = "weak_data"
    version = "1"
    budget_unit = "labels"
    Config = WeakDataConfig
    metrics: ClassVar[Mapping[str, md.Metric]] = {
        "classes": md.Metric("Number of classes."),
        "labeling_functions": md.Metric("Number of labeling functions."),
        "train/rows": md.Metric("Rows of the training split.", unit="rows"),
        "valid/rows": md.Metric("Rows of the validation split.", unit="rows"),
        "test/rows": md.Metric("Rows of the test split.", unit="rows"),
        "train/coverage": md.Metric("Share of training rows with at least one vote."),
        "train/votes_per_covered_row": md.Metric(
            "Mean number of votes of training rows with at least one vote.", unit="votes"
        ),
        "train/conflict": md.Metric("Share of training rows whose votes disagree."),
        "train/majority_vote_accuracy": md.Metric(
            "Accuracy of the majority vote on training rows with a vote and a label; a tie "
            "counts as a fair draw among its classes. Absent if no such row has a label."
        ),
    }

    def data_digests(self, config: WeakDataConfig) -> Mapping[str, str]:
        """Digest of the data set."""
        return {"dataset": datasets.data_digests(config.dataset, "auto")["dataset"]}

    def run(self, config: WeakDataConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Measure the data set; the one record has budget 0."""
        rows = datasets.read_rows(config.dataset)
        train, classes = rows.splits["train"], len(rows.classes)
        metrics = {
            "classes": classes,
            "labeling_functions": train.votes_NK.shape[1],
            **{f"{name}/rows": len(split.labels_N) for name, split in rows.splits.items()},
            **weak_label_attributes(train.votes_NK, train.labels_N, classes),
        }
        yield md.Record(budget=0, metrics=metrics)


def weak_label_attributes(
    votes_NK: np.ndarray, labels_N: np.ndarray, classes: int
) -> dict[str, float]:
    """Coverage, votes, conflict and majority-vote accuracy of weak labels, by name of the metric.

    Votes per covered row are 0 if there is none. A vote of -1 is an abstain, a label of -1 unknown.
    """
    counts_NC = np.stack([(votes_NK == c).sum(1) for c in range(classes)], axis=1)
    votes_N = counts_NC.sum(1)
    covered_N = votes_N > 0
    attributes = {
        "train/coverage": float(covered_N.mean()),
        "train/votes_per_covered_row": float(votes_N[covered_N].mean()) if covered_N.any() else 0.0,
        "train/conflict": float(((counts_NC > 0).sum(1) > 1).mean()),
    }
    scored = np.flatnonzero(covered_N & (labels_N >= 0))
    if len(scored):
        winners_NC = counts_NC[scored] == counts_NC[scored].max(1, keepdims=True)
        won_N = winners_NC[np.arange(len(scored)), labels_N[scored]]
        accuracy_N = won_N / winners_NC.sum(1)
        attributes["train/majority_vote_accuracy"] = float(accuracy_N.mean())
    return attributes
