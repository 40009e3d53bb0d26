"""One trial of the experiment: strong labels, an estimator of the method, test scores."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

import modicum as md
from modicum_algorithms.weak import estimators
from modicum_algorithms.weak.datasets import WeakData
from modicum_algorithms.weak.estimator_base import WeakClassifier, setting_name
from modicum_algorithms.weak.experiment import WeakLearningConfig, WeakMethodConfig
from modicum_algorithms.weak.metrics import Scores, score
from modicum_algorithms.weak.supervision import UNKNOWN

_ESTIMATORS: dict[str, type[WeakClassifier]] = {
    "majority_vote": estimators.MajorityVoteClassifier,
    "snorkel": estimators.SnorkelClassifier,
    "weasel": estimators.WeaselClassifier,
    "denoise": estimators.DenoiseClassifier,
    "labels_only": estimators.LabelsOnlyClassifier,
    "iwl": estimators.IntegratedWeakLearner,
    "iwld": estimators.IntegratedWeakLearner,
}


@dataclass(frozen=True)
class Trained:
    """A trained estimator and what it scored.

    Attributes:
        estimator: Fitted on class numbers.
        strong_labels: Number of strong labels used.
        test: Test scores.
        seconds: Time of training, label model included.
    """

    estimator: WeakClassifier
    strong_labels: int
    test: Scores
    seconds: float


def choose_strong(rows: int, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """Row numbers whose labels are given: random, at least one if the fraction is not zero.

    Under one seed a larger fraction contains the smaller ones.
    """
    count = 0 if fraction == 0 else max(1, round(fraction * rows))
    return np.sort(generator.permutation(rows)[:count])


def estimator_for(config: WeakMethodConfig, classes: int, seed: int) -> WeakClassifier:
    """The estimator that a configuration describes, for class numbers below `classes`."""
    kind = _ESTIMATORS[config.method]
    settings = {
        name: getattr(config, setting)
        for name in kind().get_params(deep=False)
        if (setting := setting_name(config.method, name)) is not None
    }
    if config.method == "iwld":
        settings["depends_on_x"] = True
    return kind(classes=list(range(classes)), random_state=seed, **settings)


def train(config: WeakLearningConfig, data: WeakData, trial: md.Trial) -> Trained:
    """Train the end model by the configured method and score it on the test split."""
    strong = choose_strong(len(data.train), config.strong_fraction, trial.generator("strong"))
    return train_on(config, data, strong, trial.seed)


def fit_on(
    config: WeakMethodConfig, data: WeakData, strong: np.ndarray, seed: int
) -> WeakClassifier:
    """An estimator of the method, fitted to the votes and the true labels of some rows.

    Args:
        config: The method.
        data: The data; its test split is not looked at.
        strong: Row numbers of the training split whose labels are given.
        seed: Of everything random.
    """
    labels_N = np.full(len(data.train), UNKNOWN)
    labels_N[strong] = data.train.labels_N[strong]
    return estimator_for(config, len(data.classes), seed).fit(
        data.train.features_ND,
        labels_N,
        weak_labels=data.train.votes_NK,
        X_valid=data.valid.features_ND,
        y_valid=data.valid.labels_N,
    )


def train_on(config: WeakMethodConfig, data: WeakData, strong: np.ndarray, seed: int) -> Trained:
    """Like `fit_on`, with the time that it took and the scores on the test split."""
    started = time.perf_counter()
    estimator = fit_on(config, data, strong, seed)
    seconds = time.perf_counter() - started
    predicted_N = estimator.predict(data.test.features_ND)
    test = score(np.asarray(data.test.labels_N), predicted_N, len(data.classes))
    return Trained(estimator, len(strong), test, seconds)
