"""Settings of the further experiments."""

from __future__ import annotations

from typing import Literal

import modicum as md
from modicum_algorithms.weak.config import WeakMethodConfig


class ActiveLearningConfig(WeakMethodConfig):
    """Settings of the experiment `weak_active`."""

    acquisition: Literal["random", "entropy", "disagreement", "information_gain"] = md.setting(
        description="Score by which rows are chosen for labeling: random; the entropy of the end "
        "model; the disagreement of the end model with the votes alone; or the information that "
        "the label is expected to give about the joint model. The last two need iwl or iwld."
    )
    initial_labels: int = md.setting(
        10,
        description="Labels of random rows, acquired before the first round.",
        unit="labels",
        ge=0,
    )
    labels_per_round: int = md.setting(
        10, description="Labels acquired in each round.", unit="labels", ge=1
    )
    rounds: int = md.setting(
        10,
        description="Rounds of acquisition; fewer if no rows are left.",
        unit="rounds",
        ge=1,
    )
    ensemble_size: int = md.setting(
        4,
        description="Models fitted from different initial weights, whose disagreement is measured.",
        ge=2,
        used_by={"acquisition": ("information_gain",)},
    )
    candidate_rows: int | None = md.setting(
        None,
        description="Size of the random pool that each round chooses from, drawn anew every round; "
        "all remaining rows if not given.",
        unit="rows",
        ge=1,
        used_by={"acquisition": ("entropy", "disagreement", "information_gain")},
    )


class JudgesConfig(md.Config):
    """Settings of the experiment `weak_judges`."""

    method: Literal["majority_vote", "label_model", "snorkel", "iwl"] = md.setting(
        description="Method that combines the judgements: iwl also learns from features of the "
        "pairs; the others are the methods of combine_votes."
    )
    pairs: int = md.setting(
        1000,
        description="Pairs that every oracle judges, all in one batch.",
        unit="pairs",
        ge=1,
        sets_budget=True,
    )
    accuracies: list[float] = md.setting(
        [0.9, 0.7, 0.6, 0.55, 0.55],
        description="Accuracies of the simulated oracles, from 0 to 1. Their errors are "
        "independent, and as frequent where the first completion is better as where the second is.",
        min_length=1,
    )
    features: int = md.setting(
        16,
        description="Number of features of a pair: unit normal noise around a mean whose sign "
        "depends on the winner.",
        ge=1,
        used_by={"method": ("iwl",)},
    )
    features_accuracy: float = md.setting(
        0.89,
        description="Accuracy of the best classifier that sees only the features; 0.5 for features "
        "that carry no information.",
        ge=0.5,
        lt=1,
        used_by={"method": ("iwl",)},
    )
