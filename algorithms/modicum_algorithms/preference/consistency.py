"""The experiment `oracle_consistency`: does an oracle agree with itself (figure 6.2)?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import modicum as md
from modicum_algorithms.preference.judged_pairs import JudgedPairsConfig, JudgedPairsExperiment
from modicum_algorithms.preference.oracle_settings import open_oracle
from modicum_algorithms.preference.outcomes import OUTCOME_METRICS, outcome_metrics
from modicum_algorithms.preference.pair_sources import read_judged_pairs

Answers = Sequence[md.oracles.Judgement | md.oracles.Failure]


class OracleConsistencyConfig(JudgedPairsConfig):
    """Settings of the experiment."""

    count: int = md.setting(50, description="Pairs, drawn at random.", unit="pairs", ge=1)
    opinions: int = md.setting(2, description="Judgements of each pair.", ge=2)
    order: Literal["same", "drawn"] = md.setting(
        "same",
        description="Whether each judgement of a pair is shown it in the same order, or in one "
        "drawn anew, so that a bias for a place counts, too.",
    )


class OracleConsistency(JudgedPairsExperiment[OracleConsistencyConfig]):
    """How often an oracle's judgements of the same pair agree."""

    name = "oracle_consistency"
    version = "1"
    Config = OracleConsistencyConfig
    metrics: ClassVar[Mapping[str, md.Metric]] = {
        "consistency": md.Metric(
            "Share of pairs whose judgements all have the same winner, of those judged every "
            "time; 1/2 for two coins.",
            goal="max",
        ),
        "judged_every_time": md.Metric("Share of pairs with no failure.", goal="max"),
        **OUTCOME_METRICS,
    }

    def run(self, config: OracleConsistencyConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Ask for every opinion; one record."""
        drawn = read_judged_pairs(config.pairs).draw(config.count, trial.generator("pairs"))
        opinions: list[Answers] = []
        with open_oracle(config, run=trial.id, seed=trial.seed_for("errors")) as oracle:
            for opinion in range(config.opinions):
                pairs = list(drawn.pairs)
                if config.order == "drawn":
                    seeds = trial.generator(f"order {opinion}").integers(2**32, size=len(pairs))
                    pairs = [
                        replace(pair, seed=int(seed))
                        for pair, seed in zip(pairs, seeds, strict=True)
                    ]
                opinions.append(oracle.judge(pairs, repeat=opinion))
        together, judged = consistency(opinions)
        yield md.Record(
            budget=len(drawn.pairs) * config.opinions,
            metrics={
                "consistency": together,
                "judged_every_time": judged,
                **outcome_metrics([answer for answers in opinions for answer in answers]),
            },
        )


def consistency(opinions: Sequence[Answers]) -> tuple[float | None, float]:
    """Share of pairs with one winner in all opinions, and share of pairs without a failure.

    Args:
        opinions: Answers for the same pairs, for each opinion.

    Returns:
        The first share is of the pairs without a failure; None where there is none.
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
