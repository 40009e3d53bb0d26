"""The experiment `oracle_consistency`: does an oracle agree with itself (figure 6.2)?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import modicum as md
from modicum_algorithms.preference.config import OracleAgreementConfig, OracleConsistencyConfig
from modicum_algorithms.preference.data.judged_pairs import read_known_winners
from modicum_algorithms.preference.experiments.judged_pairs import (
    ANSWER_METRICS,
    Answers,
    JudgedPairsExperiment,
    answer_metrics,
)
from modicum_algorithms.preference.oracles import open_oracle

# This experiment has no such setting: its extracts have the default length of the other one.
_EXTRACT_WORDS: int = OracleAgreementConfig.model_fields["extract_words"].default


class OracleConsistency(JudgedPairsExperiment[OracleConsistencyConfig]):
    """Share of pairs for which an oracle's repeated judgements agree."""

    name = "oracle_consistency"
    version = "1"
    Config = OracleConsistencyConfig
    metrics: ClassVar[Mapping[str, md.Metric]] = {
        "consistency": md.Metric(
            "Share of pairs whose judgements all have the same winner, of the pairs judged every "
            "time; 1/2 for two coin flips.",
            goal="max",
        ),
        "judged_every_time": md.Metric("Share of pairs without a failure.", goal="max"),
        **ANSWER_METRICS,
    }

    def run(self, config: OracleConsistencyConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Judge every pair several times; one record."""
        known = read_known_winners(config.pairs, _EXTRACT_WORDS)
        drawn = known.draw(config.count, trial.generator("pairs"))
        opinions: list[Answers] = []
        with open_oracle(config, run=trial.id, seed=trial.seed_for("errors")) as oracle:
            for opinion in range(config.opinions):
                pairs = list(drawn.pairs)
                if config.order == "drawn":
                    seeds = trial.generator(f"order {opinion}").integers(2**32, size=len(pairs))
                    pairs = [
                        replace(pair, seed=seed)
                        for pair, seed in zip(pairs, seeds.tolist(), strict=True)
                    ]
                opinions.append(oracle.judge(pairs, repeat=opinion))
        together, judged = consistency(opinions)
        yield md.Record(
            budget=len(drawn.pairs) * config.opinions,
            metrics={
                "consistency": together,
                "judged_every_time": judged,
                **answer_metrics([answer for answers in opinions for answer in answers]),
            },
        )


def consistency(opinions: Sequence[Answers]) -> tuple[float | None, float]:
    """Share of pairs with one winner in all opinions, and share of pairs without a failure.

    The first share is of the pairs without a failure, and None if there are none.
    """
    complete = [
        {answer.winner for answer in answers if isinstance(answer, md.oracles.Judgement)}
        for answers in zip(*opinions, strict=True)
        if all(isinstance(answer, md.oracles.Judgement) for answer in answers)
    ]
    judged = len(complete) / len(opinions[0])
    if not complete:
        return None, judged
    return sum(len(winners) == 1 for winners in complete) / len(complete), judged
