"""The experiment `oracle_agreement`: does an oracle agree with judgements that are known?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import modicum as md
from modicum_algorithms.preference.judged_pairs import JudgedPairsConfig, JudgedPairsExperiment
from modicum_algorithms.preference.oracle_settings import open_oracle
from modicum_algorithms.preference.outcomes import OUTCOME_METRICS, outcome_metrics
from modicum_algorithms.preference.pair_sources import read_judged_pairs


class OracleAgreementConfig(JudgedPairsConfig):
    """Settings of the experiment."""

    count: int = md.setting(1000, description="Pairs, drawn at random.", unit="pairs", ge=1)
    extract_words: int = md.setting(
        32, description="Length of the extracts of IMDB's reviews.", unit="words", ge=1
    )


class OracleAgreement(JudgedPairsExperiment[OracleAgreementConfig]):
    """How often an oracle's winner is the one that somebody else preferred."""

    name = "oracle_agreement"
    version = "1"
    Config = OracleAgreementConfig
    metrics: ClassVar[Mapping[str, md.Metric]] = {
        "agreement": md.Metric("Share of judgements with the known winner.", goal="max"),
        "longer/agreement": md.Metric(
            "Share of pairs whose known winner is the longer completion: what counting characters "
            "would reach."
        ),
        "longer/judged": md.Metric("Share of judgements for the longer completion."),
        **OUTCOME_METRICS,
    }

    def run(self, config: OracleAgreementConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Judge, and compare; one record."""
        known = read_judged_pairs(config.pairs, extract_words=config.extract_words)
        drawn = known.draw(config.count, trial.generator("pairs"))
        with open_oracle(config, run=trial.id, seed=trial.seed_for("errors")) as oracle:
            answers = oracle.judge(drawn.pairs)
        metrics: dict[str, float] = dict(outcome_metrics(answers))
        longer = ["first" if len(p.first) > len(p.second) else "second" for p in drawn.pairs]
        metrics["longer/agreement"] = _share(longer, drawn.winners)
        judged = [
            (answer.winner, winner, long)
            for answer, winner, long in zip(answers, drawn.winners, longer, strict=True)
            if isinstance(answer, md.oracles.Judgement)
        ]
        if judged:
            found, winners, long = zip(*judged, strict=True)
            metrics["agreement"] = _share(found, winners)
            metrics["longer/judged"] = _share(found, long)
        yield md.Record(budget=len(drawn.pairs), metrics=metrics)


def _share(found: Sequence[str], wanted: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(found, wanted, strict=True)) / len(found)
