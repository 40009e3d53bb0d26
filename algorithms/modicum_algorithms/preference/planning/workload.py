"""Tokens and judgements of a trial, and their time at stated throughputs."""

from __future__ import annotations

from dataclasses import dataclass

from modicum_algorithms.preference.config import PreferenceConfig
from modicum_algorithms.preference.methods.acquisition import get_acquisition
from modicum_algorithms.preference.planning.model_size import Lengths

# Operations of a training pass per operation of a forward pass (Kaplan et al. 2020, section 2.1: 6
# and 2 for each weight and token).
_TRAINING_PER_FORWARD = 3


@dataclass(frozen=True)
class Workload:
    """Work of a trial: an upper bound, as texts or training may end early.

    Attributes:
        sampled: Tokens of completions to sample.
        scored: Tokens of rows to score under θ0.
        trained: Tokens of rows to fine-tune on, over all epochs and rounds.
        judged: Judgements for training.
        evaluated: Judgements for evaluations.
    """

    sampled: int
    scored: int
    trained: int
    judged: int
    evaluated: int

    def hours(
        self,
        config: PreferenceConfig,
        trained: float | None,
        sampled: float | None,
        judged: float | None,
    ) -> dict[str, float]:
        """Hours of each part whose throughput is known.

        Args:
            config: Settings; workers share the tokens, the actors of a pool those to sample.
            trained: Tokens per second that one worker fine-tunes on.
            sampled: Tokens per second that one worker or actor samples.
            judged: Judgements per minute of the oracle.
        """
        workers, found = max(1, config.training.workers), {}
        samplers = config.generation.actors if config.generation.where == "pool" else workers
        if sampled is not None:
            found["sampling"] = self.sampled / (3600 * sampled * samplers)
        if trained is not None:
            forward = _TRAINING_PER_FORWARD * trained
            found["scoring"] = self.scored / (3600 * forward * workers)
            found["training"] = self.trained / (3600 * trained * workers)
        if judged is not None:
            found["oracle"] = (self.judged + self.evaluated) / (60 * judged)
        return found


def workload(config: PreferenceConfig, lengths: Lengths) -> Workload:
    """The work of a trial of algorithm 2, for texts of the given lengths."""
    K, M, S = config.rounds, config.acquired_per_round, config.prompts_per_round
    acquisition = get_acquisition(config.acquisition)
    pairs = S if acquisition.needs_completions else M
    ranked = S if "entropy" in acquisition.pairs.needs else 0
    if acquisition.prompts is not None and "entropy" in acquisition.prompts.needs:
        ranked += config.entropy_factor * S
    evaluations = len({*config.evaluate_at, K * M}) if config.evaluate_at else K
    evaluations += len(config.epochs_evaluated(K))
    held_out = config.evaluation_prompts * (evaluations + (config.opponent == "start"))
    sampled = K * (2 * pairs + ranked * config.entropy_samples) + held_out
    # A refit in round k trains on k × M pairs.
    refitted = config.epochs * M * K * (K + 1) // 2
    return Workload(
        sampled=sampled * lengths.completion,
        # In the first round θ = θ0, and only judged pairs are scored.
        scored=(M + (K - 1) * pairs) * lengths.row,
        trained=(refitted if config.fine_tuning == "refit" else K * M) * lengths.row,
        judged=K * M,
        evaluated=2 * config.evaluation_prompts * evaluations,
    )
