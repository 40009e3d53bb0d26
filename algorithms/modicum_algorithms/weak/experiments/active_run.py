"""A trial of the experiment `weak_active`: fits and acquisitions in turn.

Shapes: N rows, D features, K labeling functions, C classes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

import modicum as md
from modicum_algorithms.weak import acquisition
from modicum_algorithms.weak.checkpoints import save_trained
from modicum_algorithms.weak.classifier import WeakClassifier
from modicum_algorithms.weak.data import datasets
from modicum_algorithms.weak.data.arguments import as_tensor
from modicum_algorithms.weak.estimators import IntegratedWeakLearner, estimator_of
from modicum_algorithms.weak.experiments.config import ActiveLearningConfig
from modicum_algorithms.weak.run import fit_arguments, metrics_of, right_on_test


def run(config: ActiveLearningConfig, trial: md.Trial) -> Iterator[md.Record]:
    """Fit and acquire in rounds; see `ActiveWeakLearning.run`."""
    if trial.records_done > config.rounds:
        return
    data = datasets.load(config.dataset, config.features)
    order = label_order(data, trial)
    acquired, first = order[: config.initial_labels], 0
    if trial.checkpoint is not None:
        described = json.loads((trial.checkpoint / "model.json").read_text())
        acquired = np.array(described["acquired"], dtype=np.int64)
        first = trial.records_done - 1  # the last saved round: it chooses the next rows
    statistics: dict[str, Any] = {}
    for number in range(first, config.rounds + 1):
        fitted = _Round(config, data, trial, acquired)
        if number >= trial.records_done:
            metrics = trial.once(f"round-{number:03d}/metrics", fitted.metrics)
            right_N = trial.once(f"round-{number:03d}/right", fitted.right)
            trial.log.info("round %d: %d labels", number, len(acquired))
            yield md.Record(
                budget=len(acquired),
                metrics={**metrics, **statistics},
                checkpoint=fitted.saved() if config.save_model else None,
                outcomes={"test/accuracy": right_N},
            )
        left = order[~np.isin(order, acquired)]
        if number == config.rounds or len(left) == 0:
            return
        pool = _candidates(left, config, trial.generator(f"candidates {number}"))
        chosen, statistics = trial.once(
            f"round-{number:03d}/acquisition", partial(fitted.acquire, pool)
        )
        acquired = np.concatenate([acquired, np.array(chosen, dtype=np.int64)])


def label_order(data: datasets.WeakData, trial: md.Trial) -> np.ndarray:
    """Training rows with a known label, in the random order that breaks all ties.

    `weak` takes its strong labels in the same order. Under one seed all acquisitions therefore
    start from the labels of `weak`, and `random` continues as `weak` does with more labels.
    """
    order = trial.generator("strong").permutation(len(data.train))
    return order[data.train.labels_N[order] >= 0]


def _candidates(
    left: np.ndarray, config: ActiveLearningConfig, generator: np.random.Generator
) -> np.ndarray:
    """The rows to score, in their given order."""
    if config.acquisition == "random" or config.candidate_rows is None:
        return left
    return left[np.sort(generator.permutation(len(left))[: config.candidate_rows])]


class _Round:
    """One round: an estimator that is fitted when it is first needed, and the next acquisition."""

    def __init__(
        self,
        config: ActiveLearningConfig,
        data: datasets.WeakData,
        trial: md.Trial,
        acquired: np.ndarray,
    ) -> None:
        self._config, self._data, self._trial, self._acquired = config, data, trial, acquired

    @cached_property
    def _trained(self) -> tuple[WeakClassifier, float]:
        """The estimator, and its training time in seconds."""
        started = time.perf_counter()
        return self._fit(self._trial.seed), time.perf_counter() - started

    def _fit(self, seed: int) -> WeakClassifier:
        estimator = estimator_of(self._config, len(self._data.classes), seed)
        return estimator.fit(**fit_arguments(self._data, self._acquired))

    def metrics(self) -> dict[str, Any]:
        """Metrics of the fitted estimator."""
        estimator, seconds = self._trained
        return metrics_of(estimator, self._data, seconds)

    def right(self) -> list[bool]:
        """Test rows that the fitted estimator predicts right, as a list over all of them."""
        right: list[bool] = right_on_test(self._trained[0], self._data).tolist()
        return right

    def saved(self) -> Path:
        """The fitted estimator and the rows it learned from, as a checkpoint."""
        folder = self._trial.scratch / f"model_{len(self._acquired)}"
        save_trained(
            self._trained[0],
            folder,
            self._data.classes,
            config=self._config.model_dump(mode="json"),
            acquired=self._acquired.tolist(),
        )
        return folder

    def acquire(self, pool: np.ndarray) -> tuple[list[int], dict[str, Any]]:
        """Choose the next rows to label from a pool; the rows, and metrics of the choice."""
        estimator, count = self._trained[0], self._config.labels_per_round
        started = time.perf_counter()
        scores_N = self._scores(pool)
        chosen = acquisition.best_rows(pool, scores_N, count)
        seconds = time.perf_counter() - started
        train = self._data.train
        predicted_N = estimator.predict(train.features_ND[chosen])
        return chosen.tolist(), {
            "acquisition/score": float(acquisition.best_rows(scores_N, scores_N, count).mean()),
            "acquisition/pool_score": float(scores_N.mean()),
            "acquisition/errors": float((predicted_N != train.labels_N[chosen]).mean()),
            "acquisition/pool": len(pool),
            "acquisition/seconds": seconds,
        }

    def _scores(self, pool: np.ndarray) -> np.ndarray:
        """Score of every row of the pool; a higher one is a better row to label."""
        config, train, estimator = self._config, self._data.train, self._trained[0]
        features_ND, votes_NK = train.features_ND[pool], train.votes_NK[pool]
        if config.acquisition == "random":
            return np.zeros(len(pool))
        if config.acquisition == "entropy":
            return acquisition.entropy(estimator.predict_proba(features_ND))
        assert isinstance(estimator, IntegratedWeakLearner)
        if config.acquisition == "disagreement":
            prior_C = estimator.predict_proba(train.features_ND).mean(0)
            return label_model_disagreement(estimator, features_ND, votes_NK, prior_C)
        members = [estimator]
        for member in range(1, config.ensemble_size):
            other = self._fit(self._trial.seed_for(f"member {member}"))
            assert isinstance(other, IntegratedWeakLearner)
            members.append(other)
        return acquisition.information_gain(
            np.stack([m.predict_proba_with_votes(features_ND, votes_NK) for m in members])
        )


def label_model_disagreement(
    estimator: WeakClassifier, features_ND: np.ndarray, votes_NK: np.ndarray, prior_C: np.ndarray
) -> np.ndarray:
    """JS(p_θ(y|x), p(y|ỹ)): divergence of the end model from the votes alone, (N,).

    p(y|ỹ) ∝ π(y) Π_k φ_k(ỹ_k|y)^{w_k}. The divergence is set to 0 for rows without votes, which
    have no second opinion. The experiment takes the mean prediction on the training split for π.
    """
    assert estimator.joint_posterior_ is not None
    of_votes_NC = estimator.joint_posterior_.of_votes(as_tensor(features_ND), votes_NK, prior_C)
    divergence_N = acquisition.jensen_shannon(estimator.predict_proba(features_ND), of_votes_NC)
    return divergence_N * (votes_NK >= 0).any(1)
