"""The experiment `weak_judges`: how well several oracles judge together, against pairs asked.

Oracles of known quality are simulated, so that what is estimated without any truth can be compared
with it (thesis, end of section 3.5).

Shapes: N pairs, K oracles, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import modicum as md

if TYPE_CHECKING:
    import numpy as np

    from modicum_algorithms.weak.judges import Verdicts

BETTER, WORSE = "the better one", "the other one"


class JudgesConfig(md.Config):
    """Settings of the experiment."""

    method: Literal["majority_vote", "label_model", "snorkel", "iwl"] = md.setting(
        description="How judgements are combined: iwl also learns from features of the pairs; the "
        "others are those of `combine_votes`."
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
        description="Of the simulated oracles, from 0 to 1; their errors are independent and as "
        "frequent where the first completion is the better one as where the second is.",
        min_length=1,
    )
    features: int = md.setting(
        16,
        description="Features of a pair: unit normal noise around a mean that the winner gives its "
        "sign.",
        ge=1,
        used_by={"method": ("iwl",)},
    )
    features_accuracy: float = md.setting(
        0.89,
        description="Share of pairs whose winner the best rule tells from the features alone; 0.5 "
        "for features that tell nothing.",
        ge=0.5,
        lt=1,
        used_by={"method": ("iwl",)},
    )


class WeakJudges(md.Experiment[JudgesConfig]):
    """Simulated oracles as judges of the same pairs; spends a judgement of each on every pair."""

    name = "weak_judges"
    version = "1"
    budget_unit = "oracle_calls"
    Config = JudgesConfig
    uses_torch = True
    metrics: ClassVar[Mapping[str, md.Metric]] = {
        "accuracy": md.Metric(
            "Share of pairs judged right; one without a verdict counts as a fair draw.",
            goal="max",
        ),
        "failures": md.Metric("Share of pairs without a verdict: ties.", goal="min"),
        "behind_majority_vote": md.Metric(
            "1 if the majority vote on the same judgements is right on more pairs, else 0; its "
            "mean is the share of batches in which the method did harm.",
            goal="min",
        ),
        "best_oracle/accuracy": md.Metric(
            "Share of these pairs that the best oracle alone judges right."
        ),
        "best_oracle/estimated_accuracy": md.Metric("Of the same oracle, by the method."),
        "best_possible/accuracy": md.Metric(
            "Share of these pairs judged right by the best rule there is, which knows the oracles' "
            "accuracies and, where the method has features, what they say."
        ),
        "estimates/error": md.Metric(
            "Mean over the oracles of the distance of estimated accuracy and the accuracy that it "
            "was made with.",
            goal="min",
        ),
    }

    def check(self, config: JudgesConfig) -> None:
        """Refuse accuracies that are none."""
        for accuracy in config.accuracies:
            if not 0 <= accuracy <= 1:
                raise md.InputError(f"accuracies: each must be from 0 to 1, got {accuracy!r}")

    def run(self, config: JudgesConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Draw pairs, ask every oracle about them, combine; one record.

        Under one seed all methods see the same judgements, and a smaller batch is the beginning
        of a larger one.
        """
        import numpy as np

        from modicum_algorithms.weak.judges import combine_votes, votes_of

        first_better_N = trial.generator("winners").random(config.pairs) < 1 / 2
        pairs = simulated_pairs(first_better_N)
        oracles = [
            md.oracles.NoisyOracle(
                KnowingOracle(), 1 - accuracy, 1 - accuracy, seed=trial.seed_for(f"oracle {k}")
            )
            for k, accuracy in enumerate(config.accuracies)
        ]
        votes_NK = votes_of([oracle.judge(pairs) for oracle in oracles])
        features = None
        if config.method == "iwl":
            features = simulated_features(
                first_better_N,
                config.features,
                config.features_accuracy,
                trial.generator("features"),
            )
        verdicts = _combine(config, votes_NK, features, trial)
        majority = combine_votes(votes_NK, method="majority_vote")
        accuracy = judged_right(verdicts.first_wins, first_better_N)
        best = int(np.argmax(config.accuracies))
        first_wins_by_best_N = (votes_NK[:, best] == 0).astype(np.float64)
        evidence_N = 0.0 if features is None else features.log_odds_N
        metrics = {
            "accuracy": accuracy,
            "failures": float((verdicts.first_wins == 1 / 2).mean()),
            "behind_majority_vote": int(
                accuracy < judged_right(majority.first_wins, first_better_N)
            ),
            "best_oracle/accuracy": judged_right(first_wins_by_best_N, first_better_N),
            "best_oracle/estimated_accuracy": float(verdicts.accuracy[best]),
            "best_possible/accuracy": judged_right(
                best_verdicts(votes_NK, config.accuracies, evidence_N), first_better_N
            ),
            "estimates/error": float(np.abs(verdicts.accuracy - config.accuracies).mean()),
        }
        yield md.Record(budget=votes_NK.size, metrics=metrics)


def _combine(
    config: JudgesConfig,
    votes_NK: np.ndarray,
    features: SimulatedFeatures | None,
    trial: md.Trial,
) -> Verdicts:
    from modicum_algorithms.weak import judges

    if features is not None:
        learner = judges.default_learner(random_state=trial.seed_for("training"))
        return judges.combine_votes_with_features(votes_NK, features.features_ND, learner=learner)
    method: Any = config.method
    return judges.combine_votes(votes_NK, method=method)


@dataclass(frozen=True)
class KnowingOracle:
    """Knows which completion of a simulated pair is the better one, and never fails."""

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
    """Pairs of which `KnowingOracle` knows the winner.

    Args:
        first_better_N: Whether the first completion is the better one.
    """
    return [
        md.oracles.Pair(f"pair {n}", *((BETTER, WORSE) if first else (WORSE, BETTER)))
        for n, first in enumerate(first_better_N)
    ]


@dataclass(frozen=True, eq=False)
class SimulatedFeatures:
    """Features of pairs, and what they are worth.

    Attributes:
        features_ND: Differences of the completions, float32: they change their sign where the
            completions change places.
        log_odds_N: Log-odds that the first completion is the better one, given the features alone.
    """

    features_ND: np.ndarray
    log_odds_N: np.ndarray


def simulated_features(
    first_better_N: np.ndarray, features: int, accuracy: float, generator: np.random.Generator
) -> SimulatedFeatures:
    """Unit normal noise around ±μ, + where the first completion is the better one.

    μ has a random direction and the length Φ⁻¹(accuracy), so that the best rule, the sign of μᵀx,
    is right with that probability.

    Args:
        first_better_N: Whether the first completion is the better one.
        features: D.
        accuracy: Of the best rule, at least 1/2 and below 1.
        generator: Draws the direction, then the noise pair by pair.
    """
    import numpy as np
    from scipy.special import ndtri

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

    Args:
        votes_NK: 0, the first wins, or 1, the second does, of oracles that err independently.
        accuracies: Of the K oracles.
        evidence_N: Log-odds from elsewhere.
    """
    import numpy as np
    from scipy.special import expit, logit

    signs_NK = np.where(votes_NK == 0, 1.0, -1.0)
    return np.asarray(expit(signs_NK @ logit(np.asarray(accuracies)) + evidence_N))


def judged_right(first_wins_N: np.ndarray, first_better_N: np.ndarray) -> float:
    """Share of pairs whose more probable winner is the better one; 1/2 counts as half right."""
    import numpy as np

    right_N = (first_wins_N > 1 / 2) == first_better_N
    return float(np.where(first_wins_N == 1 / 2, 0.5, right_N).mean())
