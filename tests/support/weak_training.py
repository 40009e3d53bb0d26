"""Fits of weak supervision as the experiment makes them, on any data."""

from __future__ import annotations

from dataclasses import dataclass

import modicum as md
from modicum_algorithms.weak.classifier import WeakClassifier
from modicum_algorithms.weak.config import WeakLearningConfig
from modicum_algorithms.weak.data.datasets import WeakData
from modicum_algorithms.weak.estimators import estimator_of
from modicum_algorithms.weak.evaluation import Scores, score
from modicum_algorithms.weak.run import choose_strong, fit_arguments


@dataclass(frozen=True)
class Trained:
    """A fitted estimator, the number of its strong labels, and its scores on the test split."""

    estimator: WeakClassifier
    strong_labels: int
    test: Scores


def train(config: WeakLearningConfig, data: WeakData, trial: md.Trial) -> Trained:
    """Fit the configured method and score it on the test split."""
    strong = choose_strong(len(data.train), config.strong_fraction, trial.generator("strong"))
    estimator = estimator_of(config, len(data.classes), trial.seed)
    estimator.fit(**fit_arguments(data, strong))
    predicted_N = estimator.predict(data.test.features_ND)
    return Trained(
        estimator, len(strong), score(data.test.labels_N, predicted_N, len(data.classes))
    )
