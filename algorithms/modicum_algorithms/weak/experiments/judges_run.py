"""A trial of the experiment `weak_judges`, and what it simulates.

Shapes: N pairs, K oracles, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, ndtri

import modicum as md
from modicum_algorithms.weak import judges
from modicum_algorithms.weak.experiments.config import JudgesConfig

BETTER, WORSE = "the better one", "the other one"


def run(config: JudgesConfig, trial: md.Trial) -> Iterator[md.Record]:
    """Draw, judge and combine; see `WeakJudges.run`."""
    first_better_N = trial.generator("winners").random(config.pairs) < 1 / 2
    pairs = simulated_pairs(first_better_N)
    oracles = [
        md.oracles.NoisyOracle(
            KnowingOracle(), 1 - accuracy, 1 - accuracy, seed=trial.seed_for(f"oracle {k}")
        )
        for k, accuracy in enumerate(config.accuracies)
    ]
    votes_NK = judges.votes_of([oracle.judge(pairs) for oracle in oracles])
    evidence_N: np.ndarray | float = 0.0
    if config.method == "iwl":
        features = simulated_features(
            first_better_N,
            config.features,
            config.features_accuracy,
            trial.generator("features"),
        )
        evidence_N = features.log_odds_N
        learner = judges.default_learner(random_state=trial.seed_for("training"))
        verdicts = judges.combine_votes_with_features(
            votes_NK, features.features_ND, learner=learner
        )
    else:
        verdicts = judges.combine_votes(votes_NK, method=config.method)
    majority = judges.combine_votes(votes_NK, method="majority_vote")
    accuracy = judged_right(verdicts.first_wins, first_better_N)
    best = int(np.argmax(config.accuracies))
    first_wins_by_best_N = (votes_NK[:, best] == 0).astype(np.float64)
    metrics = {
        "accuracy": accuracy,
        "failures": float((verdicts.first_wins == 1 / 2).mean()),
        "behind_majority_vote": int(accuracy < judged_right(majority.first_wins, first_better_N)),
        "best_oracle/accuracy": judged_right(first_wins_by_best_N, first_better_N),
        "best_oracle/estimated_accuracy": float(verdicts.accuracy[best]),
        "best_possible/accuracy": judged_right(
            best_verdicts(votes_NK, config.accuracies, evidence_N), first_better_N
        ),
        "estimates/error": float(np.abs(verdicts.accuracy - config.accuracies).mean()),
    }
    yield md.Record(budget=votes_NK.size, metrics=metrics)


@dataclass(frozen=True)
class KnowingOracle:
    """An oracle that knows the better completion of a simulated pair, and never fails."""

    name: str = "truth"
    version: str = "1"

    def judge(
        self, pairs: Sequence[md.oracles.Pair], *, repeat: int = 0
    ) -> list[md.oracles.Judgement | md.oracles.Failure]:
        """One answer for each pair of `simulated_pairs`. See `md.oracles.Oracle`."""
        return [
            md.oracles.Judgement(
                winner="first" if pair.first == BETTER else "second",
                oracle=self.name,
                version=self.version,
                order_shown=pair.order,
            )
            for pair in pairs
        ]


def simulated_pairs(first_better_N: np.ndarray) -> list[md.oracles.Pair]:
    """Pairs whose winner `KnowingOracle` knows."""
    return [
        md.oracles.Pair(f"pair {n}", *((BETTER, WORSE) if first else (WORSE, BETTER)))
        for n, first in enumerate(first_better_N)
    ]


@dataclass(frozen=True, eq=False)
class SimulatedFeatures:
    """Features of pairs, and the evidence that they carry.

    Attributes:
        features_ND: Differences of the completions, float32; swapping the completions changes
            their sign.
        log_odds_N: Log-odds that the first completion is the better one, given the features alone.
    """

    features_ND: np.ndarray
    log_odds_N: np.ndarray


def simulated_features(
    first_better_N: np.ndarray, features: int, accuracy: float, generator: np.random.Generator
) -> SimulatedFeatures:
    """Unit normal noise around ±μ, with + where the first completion is the better one.

    μ has a random direction and the length Φ⁻¹(accuracy), so that the best classifier, the sign of
    μᵀx, is right with that probability. The direction is drawn first, then the noise pair by pair.
    """
    direction_D = generator.normal(size=features)
    mean_D = ndtri(accuracy) * direction_D / np.linalg.norm(direction_D)
    noise_ND = generator.normal(size=(len(first_better_N), features))
    signs_N1 = np.where(first_better_N, 1.0, -1.0)[:, None]
    features_ND = (noise_ND + signs_N1 * mean_D).astype(np.float32)
    return SimulatedFeatures(features_ND, 2 * features_ND @ mean_D)


def best_verdicts(
    votes_NK: np.ndarray, accuracies: Sequence[float], evidence_N: np.ndarray | float = 0.0
) -> np.ndarray:
    """Probability that the first completion is the better one, by Bayes' rule.

    The oracles err independently. Evidence is log-odds from other sources, such as features.
    """
    signs_NK = np.where(votes_NK == 0, 1.0, -1.0)
    return np.asarray(expit(signs_NK @ logit(np.asarray(accuracies)) + evidence_N))


def judged_right(first_wins_N: np.ndarray, first_better_N: np.ndarray) -> float:
    """Share of pairs whose more probable winner is the better one; 1/2 counts as half right."""
    right_N = (first_wins_N > 1 / 2) == first_better_N
    return float(np.where(first_wins_N == 1 / 2, 0.5, right_N).mean())
