"""The experiment `weak_active`: which rows to label, chosen in rounds.

The combination of weak with active learning that section 3.5 leaves to future work.

Shapes: N rows, D features, K labeling functions, C classes, M members of an ensemble.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import modicum as md
from modicum_algorithms.weak import datasets
from modicum_algorithms.weak.experiment import (
    WeakLearning,
    WeakMethodConfig,
    check_method,
    metrics_of,
)

if TYPE_CHECKING:
    import numpy as np

    from modicum_algorithms.weak.estimator_base import WeakClassifier

_OF_LABEL_MODELS = ("disagreement", "information_gain")
_WITH_LABEL_MODEL = ("iwl", "iwld")


class ActiveLearningConfig(WeakMethodConfig):
    """Settings of the experiment; those of data and methods are the ones of `weak`."""

    acquisition: Literal["random", "entropy", "disagreement", "information_gain"] = md.setting(
        description="What makes a row worth a label: nothing, the entropy of the end model, how "
        "far the end model is from what the votes say without it, or what its label is expected "
        "to tell of the joint model. The last two need iwl or iwld."
    )
    initial_labels: int = md.setting(
        10, description="Labels of random rows before the first round.", unit="labels", ge=0
    )
    labels_per_round: int = md.setting(
        10, description="Labels that a round acquires.", unit="labels", ge=1
    )
    rounds: int = md.setting(
        10, description="Rounds of acquisition; fewer if no rows are left.", unit="rounds", ge=1
    )
    ensemble_size: int = md.setting(
        4,
        description="Fits from different initial weights whose disagreement is measured.",
        ge=2,
        used_by={"acquisition": ("information_gain",)},
    )
    candidate_rows: int | None = md.setting(
        None,
        description="How many rows, drawn anew in every round, a round chooses from; all if not "
        "given.",
        unit="rows",
        ge=1,
        used_by={"acquisition": ("entropy", "disagreement", "information_gain")},
    )


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
            "Mean score of the rows that were labeled in this round; absent at the start."
        ),
        "acquisition/pool_score": md.Metric("Mean score of all rows that it chose from."),
        "acquisition/errors": md.Metric(
            "Share of the rows labeled in this round that the end model had wrong before."
        ),
        "acquisition/pool": md.Metric("Rows that it chose from.", unit="rows"),
        "acquisition/seconds": md.Metric(
            "Time of scoring, other members of the ensemble included.", unit="s", timing=True
        ),
    }

    def check(self, config: ActiveLearningConfig) -> None:
        """Refuse what cannot be trained, or asked, on the data at hand."""
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
        """Only on request."""
        return config.save_model

    def run(self, config: ActiveLearningConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Train, then acquire labels and train from scratch in every round; a record for each fit.

        Without a saved model a trial that died starts again; with one it reads from it which rows
        had been acquired.
        """
        import numpy as np

        from modicum_algorithms.weak.training import train_on

        if trial.records_done > config.rounds:
            return
        data = datasets.load(config.dataset, config.features)
        order = label_order(data, trial)
        acquired, first = order[: config.initial_labels], 0
        if trial.checkpoint is not None:
            described = json.loads((trial.checkpoint / "model.json").read_text())
            acquired = np.array(described["acquired"], dtype=np.int64)
            first = trial.records_done - 1  # trained again: it chooses the next rows
        statistics: dict[str, Any] = {}
        for number in range(first, config.rounds + 1):
            result = train_on(config, data, acquired, trial.seed)
            if number >= trial.records_done:
                trial.log.info("round %d: %d labels", number, len(acquired))
                yield md.Record(
                    budget=len(acquired),
                    metrics={**metrics_of(result, data), **statistics},
                    checkpoint=_saved(result.estimator, config, data, acquired, trial),
                )
            left = order[~np.isin(order, acquired)]
            if number == config.rounds or len(left) == 0:
                return
            pool = _candidates(left, config, trial.generator(f"candidates {number}"))
            chosen, statistics = _acquire(config, data, result.estimator, acquired, pool, trial)
            acquired = np.concatenate([acquired, chosen])


def label_order(data: datasets.WeakData, trial: md.Trial) -> np.ndarray:
    """The training rows whose label can be had, in the order that breaks all ties.

    A random one, and the one in which `weak` takes its strong labels: under one seed all
    acquisitions start from the labels that `weak` has, and `random` goes on like it.
    """
    order = trial.generator("strong").permutation(len(data.train))
    return order[data.train.labels_N[order] >= 0]


def _candidates(
    left: np.ndarray, config: ActiveLearningConfig, generator: np.random.Generator
) -> np.ndarray:
    """The rows to score, in the order that they came in."""
    import numpy as np

    if config.acquisition == "random" or config.candidate_rows is None:
        return left
    return left[np.sort(generator.permutation(len(left))[: config.candidate_rows])]


def _acquire(
    config: ActiveLearningConfig,
    data: datasets.WeakData,
    estimator: WeakClassifier,
    acquired: np.ndarray,
    pool: np.ndarray,
    trial: md.Trial,
) -> tuple[np.ndarray, dict[str, Any]]:
    """The rows to label next, and what a record says of the choice."""
    from modicum_algorithms.weak.acquisition import best_rows

    started = time.perf_counter()
    scores = _scores(config, data, estimator, acquired, pool, trial)
    chosen = best_rows(pool, scores, config.labels_per_round)
    seconds = time.perf_counter() - started
    predicted = estimator.predict(data.train.features_ND[chosen])
    return chosen, {
        "acquisition/score": float(best_rows(scores, scores, config.labels_per_round).mean()),
        "acquisition/pool_score": float(scores.mean()),
        "acquisition/errors": float((predicted != data.train.labels_N[chosen]).mean()),
        "acquisition/pool": len(pool),
        "acquisition/seconds": seconds,
    }


def _scores(
    config: ActiveLearningConfig,
    data: datasets.WeakData,
    estimator: WeakClassifier,
    acquired: np.ndarray,
    pool: np.ndarray,
    trial: md.Trial,
) -> np.ndarray:
    """A score of every row of the pool."""
    import numpy as np

    from modicum_algorithms.weak import acquisition
    from modicum_algorithms.weak.training import fit_on

    features_ND, votes_NK = data.train.features_ND[pool], data.train.votes_NK[pool]
    if config.acquisition == "random":
        return np.zeros(len(pool))
    if config.acquisition == "entropy":
        return acquisition.entropy(estimator.predict_proba(features_ND))
    if config.acquisition == "disagreement":
        return label_model_disagreement(
            estimator,
            features_ND,
            votes_NK,
            estimator.predict_proba(data.train.features_ND).mean(0),
        )
    others = [
        fit_on(config, data, acquired, trial.seed_for(f"member {member}"))
        for member in range(1, config.ensemble_size)
    ]
    return acquisition.information_gain(
        np.stack([m.predict_proba_with_votes(features_ND, votes_NK) for m in [estimator, *others]])
    )


def label_model_disagreement(
    estimator: WeakClassifier, features_ND: np.ndarray, votes_NK: np.ndarray, prior_C: np.ndarray
) -> np.ndarray:
    """JS(p_θ(y|x), p(y|ỹ)): how far the end model is from the label model's word alone, (N,).

    p(y|ỹ) ∝ π(y) Π_k φ_k(ỹ_k|y)^{w_k}. It is 0 where no function votes: there is no second
    opinion.

    Args:
        estimator: A fitted iWL or iWLD.
        features_ND: Features.
        votes_NK: Votes, -1 is an abstain.
        prior_C: π; the experiment takes the mean prediction on the training split.
    """
    from modicum_algorithms.weak.acquisition import jensen_shannon
    from modicum_algorithms.weak.estimator_base import as_tensor

    assert estimator.joint_posterior_ is not None
    of_votes_NC = estimator.joint_posterior_.of_votes(as_tensor(features_ND), votes_NK, prior_C)
    divergence_N = jensen_shannon(estimator.predict_proba(features_ND), of_votes_NC)
    return divergence_N * (votes_NK >= 0).any(1)


def _saved(
    estimator: WeakClassifier,
    config: ActiveLearningConfig,
    data: datasets.WeakData,
    acquired: np.ndarray,
    trial: md.Trial,
) -> Path | None:
    """The checkpoint of a round, if models are kept: the model, and what it learned from."""
    if not config.save_model:
        return None
    from modicum_algorithms.weak.saved_models import save_trained

    folder = trial.scratch / f"model_{len(acquired)}"
    save_trained(
        estimator,
        folder,
        data.classes,
        config=config.model_dump(mode="json"),
        acquired=acquired.tolist(),
    )
    return folder
