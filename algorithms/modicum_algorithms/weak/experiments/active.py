"""The experiment `weak_active`: rows to label are chosen in rounds.

The combination of weak with active learning that section 3.5 leaves to future work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import modicum as md
from modicum_algorithms.weak.data import datasets
from modicum_algorithms.weak.experiment import WeakLearning, check_method
from modicum_algorithms.weak.experiments.config import ActiveLearningConfig

_OF_LABEL_MODELS = ("disagreement", "information_gain")
_WITH_LABEL_MODEL = ("iwl", "iwld")


class ActiveWeakLearning(md.Experiment[ActiveLearningConfig]):
    """Weak supervision that chooses which rows to label (section 3.5, future work)."""

    name = "weak_active"
    version = "1"
    budget_unit = "labels"
    Config = ActiveLearningConfig
    uses_torch = True
    selection_metric = WeakLearning.selection_metric
    metrics: ClassVar[Mapping[str, md.Metric]] = {
        **WeakLearning.metrics,
        "acquisition/score": md.Metric(
            "Mean score of the rows labeled in this round; absent in the first record."
        ),
        "acquisition/pool_score": md.Metric("Mean score of all rows in the round's pool."),
        "acquisition/errors": md.Metric(
            "Share of the rows labeled in this round that the previous end model had wrong."
        ),
        "acquisition/pool": md.Metric("Rows in the round's pool.", unit="rows"),
        "acquisition/seconds": md.Metric(
            "Time of scoring, with the training of further ensemble members.", unit="s", timing=True
        ),
    }

    def check(self, config: ActiveLearningConfig) -> None:
        """Refuse settings that cannot be trained, or labels that cannot be had, on the data set."""
        if config.acquisition in _OF_LABEL_MODELS and config.method not in _WITH_LABEL_MODEL:
            raise md.InputError(
                f"acquisition: {config.acquisition} needs the label model of iwl or iwld; "
                f"{config.method} has random and entropy"
            )
        if config.method == "labels_only" and config.initial_labels == 0:
            raise md.InputError(
                "initial_labels: labels_only learns from labels alone, so it must be 1 or more"
            )
        data = datasets.load(config.dataset, config.features)
        labeled = int((data.train.labels_N >= 0).sum())
        if labeled == 0:
            raise md.InputError(
                f"dataset: {config.dataset!r} has no training row whose label is known, so there "
                "is nothing to ask about"
            )
        if config.initial_labels > labeled:
            raise md.InputError(
                f"initial_labels: {config.dataset!r} has {labeled} training rows whose label is "
                f"known (allowed: up to {labeled}), got {config.initial_labels}"
            )
        check_method(config, data)

    def data_digests(self, config: ActiveLearningConfig) -> Mapping[str, str]:
        """Digests of the data set and its features."""
        return datasets.data_digests(config.dataset, config.features)

    def saves_checkpoints(self, config: ActiveLearningConfig) -> bool:
        """Tell whether models are kept: only on request."""
        return config.save_model

    def run(self, config: ActiveLearningConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Train from scratch in every round, then acquire labels; one record for each fit.

        A trial that starts again repeats no round whose record and acquired rows are in its
        storage; with a saved model it continues after that model's round.
        """
        from modicum_algorithms.weak.experiments.active_run import run

        return run(config, trial)
