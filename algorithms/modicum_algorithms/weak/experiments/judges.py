"""The experiment `weak_judges`: joint accuracy of several oracles against the pairs asked.

The oracles are simulated with known accuracies, so that estimates made without any truth can be
compared with them (thesis, end of section 3.5).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import modicum as md
from modicum_algorithms.weak.experiments.config import JudgesConfig


class WeakJudges(md.Experiment[JudgesConfig]):
    """Simulated oracles judge the same pairs; each judgement of a pair is spent budget."""

    name = "weak_judges"
    version = "1"
    budget_unit = "oracle_calls"
    Config = JudgesConfig
    uses_torch = True
    metrics: ClassVar[Mapping[str, md.Metric]] = {
        "accuracy": md.Metric(
            "Share of pairs judged right; a pair without a verdict counts as a fair draw.",
            goal="max",
        ),
        "failures": md.Metric("Share of pairs without a verdict (ties).", goal="min"),
        "behind_majority_vote": md.Metric(
            "1 if the majority vote on the same judgements is right on more pairs, else 0; the "
            "mean is the share of batches in which the method did harm.",
            goal="min",
        ),
        "best_oracle/accuracy": md.Metric(
            "Share of these pairs that the best oracle alone judges right."
        ),
        "best_oracle/estimated_accuracy": md.Metric(
            "Accuracy of the same oracle as the method estimates it."
        ),
        "best_possible/accuracy": md.Metric(
            "Share of these pairs judged right by Bayes' rule, which knows the oracles' accuracies "
            "and, if the method has features, their distribution."
        ),
        "estimates/error": md.Metric(
            "Absolute error of the estimated accuracy, averaged over the oracles.",
            goal="min",
        ),
    }

    def check(self, config: JudgesConfig) -> None:
        """Refuse accuracies outside [0, 1]."""
        for accuracy in config.accuracies:
            if not 0 <= accuracy <= 1:
                raise md.InputError(f"accuracies: each must be from 0 to 1, got {accuracy!r}")

    def run(self, config: JudgesConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Draw pairs, ask every oracle about them, combine the judgements; one record.

        Under one seed all methods see the same judgements, and a smaller batch is the beginning
        of a larger one.
        """
        from modicum_algorithms.weak.experiments.judges_run import run

        return run(config, trial)
