"""The experiment `weak`: accuracy against the number of strong labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import modicum as md
from modicum_algorithms.weak.config import WeakLearningConfig, WeakMethodConfig
from modicum_algorithms.weak.data import datasets
from modicum_algorithms.weak.memory import require_memory


class WeakLearning(md.Experiment[WeakLearningConfig]):
    """Weak supervision: labeling functions and a few strong labels (chapter 3)."""

    name = "weak"
    version = "2"
    budget_unit = "labels"
    Config = WeakLearningConfig
    uses_torch = True
    selection_metric = "validation/accuracy"
    metrics: ClassVar[Mapping[str, md.Metric]] = {
        "test/accuracy": md.Metric("Accuracy on the test split.", goal="max", outcomes=True),
        "test/f1": md.Metric(
            "F1 on the test split: of class 1 if there are two, else the macro mean.", goal="max"
        ),
        "validation/accuracy": md.Metric("Accuracy on the validation split.", goal="max"),
        "validation/f1": md.Metric("F1 on the validation split.", goal="max"),
        "evaluation/labels": md.Metric(
            "Labels of the validation split, used for early stopping.",
            unit="labels",
            evaluation_cost=True,
        ),
        "train/coverage": md.Metric("Share of training rows with at least one vote."),
        "train/labeling_functions": md.Metric("Number of labeling functions."),
        "train/chosen": md.Metric(
            "Settings that won on the validation split, for methods that try several."
        ),
        "train/iterations": md.Metric("Gradient steps made.", unit="iterations"),
        "train/best_iteration": md.Metric("Step whose weights were kept.", unit="iterations"),
        "train/seconds": md.Metric("Training time.", unit="s", timing=True),
    }

    def check(self, config: WeakLearningConfig) -> None:
        """Refuse settings that cannot be trained on the data set."""
        data = datasets.load(config.dataset, config.features)
        if config.method == "labels_only" and config.strong_fraction == 0:
            raise md.InputError(
                "strong_fraction: labels_only learns from strong labels alone, so it must be "
                "more than 0"
            )
        if config.strong_fraction > 0 and (data.train.labels_N < 0).any():
            raise md.InputError(
                f"strong_fraction: must be 0 on {config.dataset!r}, which has training rows "
                "without labels"
            )
        check_method(config, data)

    def data_digests(self, config: WeakLearningConfig) -> Mapping[str, str]:
        """Digests of the data set and its features."""
        return datasets.data_digests(config.dataset, config.features)

    def saves_checkpoints(self, config: WeakLearningConfig) -> bool:
        """Tell whether the trained model is kept: only on request."""
        return config.save_model

    def run(self, config: WeakLearningConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Train the end model once; the record's budget is the number of strong labels."""
        from modicum_algorithms.weak.run import run

        return run(config, trial)


def check_method(config: WeakMethodConfig, data: datasets.WeakData) -> None:
    """Refuse a method that cannot be trained on the data set.

    Raises:
        InputError: The method needs votes and there are none, or it needs more memory than is free.
    """
    if config.method != "labels_only" and not (data.train.votes_NK >= 0).any():
        raise md.InputError(
            f"method: {config.method} needs votes, but every labeling function of "
            f"{config.dataset!r} abstains on all {len(data.train)} training rows"
        )
    require_memory(
        config,
        config.method,
        rows=len(data.train),
        features=data.train.features_ND.shape[1],
        classes=len(data.classes),
        labeling_functions=data.train.votes_NK.shape[1],
    )
