"""A trial of the experiment `weak`: strong labels, a fitted estimator, test scores."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import modicum as md
from modicum_algorithms.weak.checkpoints import save_trained
from modicum_algorithms.weak.classifier import WeakClassifier
from modicum_algorithms.weak.config import WeakLearningConfig
from modicum_algorithms.weak.data import datasets
from modicum_algorithms.weak.estimators import estimator_of
from modicum_algorithms.weak.evaluation import score


def run(config: WeakLearningConfig, trial: md.Trial) -> Iterator[md.Record]:
    """Train the end model once and yield its record; see `WeakLearning.run`."""
    if trial.records_done:  # the record and the model were saved before the process died
        return
    data = datasets.load(config.dataset, config.features)
    strong = choose_strong(len(data.train), config.strong_fraction, trial.generator("strong"))
    estimator = estimator_of(config, len(data.classes), trial.seed)
    started = time.perf_counter()
    estimator.fit(**fit_arguments(data, strong))
    seconds = time.perf_counter() - started
    trial.log.info(
        "%d strong labels, %d iterations, best at %d",
        len(strong),
        estimator.n_iter_,
        estimator.best_iteration_,
    )
    checkpoint = None
    if config.save_model:
        checkpoint = trial.scratch / "model"
        save_trained(estimator, checkpoint, data.classes, config=config.model_dump(mode="json"))
    metrics = metrics_of(estimator, data, seconds)
    yield md.Record(
        budget=len(strong),
        metrics=metrics,
        checkpoint=checkpoint,
        outcomes={"test/accuracy": right_on_test(estimator, data)},
    )


def choose_strong(rows: int, fraction: float, generator: np.random.Generator) -> np.ndarray:
    """Random row numbers whose labels are given, sorted; at least one if the fraction is above 0.

    Under one seed a larger fraction contains the smaller ones.
    """
    count = 0 if fraction == 0 else max(1, round(fraction * rows))
    return np.sort(generator.permutation(rows)[:count])


def fit_arguments(data: datasets.WeakData, strong: np.ndarray) -> dict[str, Any]:
    """Arguments of `WeakClassifier.fit`: the votes, and the true labels of the strong rows."""
    labels_N = np.full(len(data.train), md.data.UNKNOWN)
    labels_N[strong] = data.train.labels_N[strong]
    return {
        "X": data.train.features_ND,
        "y": labels_N,
        "weak_labels": data.train.votes_NK,
        "X_valid": data.valid.features_ND,
        "y_valid": data.valid.labels_N,
    }


def right_on_test(estimator: WeakClassifier, data: datasets.WeakData) -> np.ndarray:
    """Test rows, shape (N,), that an estimator fitted on class numbers predicts right."""
    return np.asarray(estimator.predict(data.test.features_ND) == data.test.labels_N)


def metrics_of(
    estimator: WeakClassifier, data: datasets.WeakData, seconds: float
) -> dict[str, Any]:
    """Metrics of an estimator fitted on class numbers, by the names of `WeakLearning.metrics`."""
    predicted_N = estimator.predict(data.test.features_ND)
    test = score(np.asarray(data.test.labels_N), predicted_N, len(data.classes))
    validation = estimator.validation_scores_
    assert validation is not None
    metrics: dict[str, Any] = {
        "test/accuracy": test.accuracy,
        "test/f1": test.f1,
        "validation/accuracy": validation.accuracy,
        "validation/f1": validation.f1,
        "evaluation/labels": len(data.valid),
        "train/coverage": float((data.train.votes_NK >= 0).any(1).mean()),
        "train/labeling_functions": data.train.votes_NK.shape[1],
        "train/iterations": estimator.n_iter_,
        "train/best_iteration": estimator.best_iteration_,
        "train/seconds": seconds,
    }
    if estimator.chosen_:
        metrics["train/chosen"] = ", ".join(f"{n}={v}" for n, v in estimator.chosen_.items())
    return metrics
