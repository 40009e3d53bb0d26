"""The experiment `oracle_agreement`: does an oracle agree with judgements that are known?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import modicum as md
from modicum_algorithms.preference.oracle_settings import (
    OracleConfig,
    build_oracle,
    check_oracle,
    oracle_digests,
)
from modicum_algorithms.preference.outcomes import OUTCOME_METRICS, outcome_metrics
from modicum_algorithms.preference.pair_sources import (
    SOURCES_DESCRIPTION,
    read_judged_pairs,
    source_files,
)


class OracleAgreementConfig(OracleConfig):
    """Settings of the experiment."""

    pairs: str = md.setting("tldr", description=SOURCES_DESCRIPTION, identity=False)
    count: int = md.setting(1000, description="Pairs, drawn at random.", unit="pairs", ge=1)
    extract_words: int = md.setting(
        32, description="Length of the extracts of IMDB's reviews.", unit="words", ge=1
    )


class OracleAgreement(md.Experiment[OracleAgreementConfig]):
    """How often an oracle's winner is the one that somebody else preferred."""

    name = "oracle_agreement"
    version = "1"
    budget_unit = "oracle_calls"
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

    def check(self, config: OracleAgreementConfig) -> None:
        """Find what is missing before anything starts."""
        check_oracle(config)
        source_files(config.pairs)

    def data_digests(self, config: OracleAgreementConfig) -> Mapping[str, str]:
        """Digests of the pairs and of what the oracle is made of."""
        pairs = md.data.digest_files(source_files(config.pairs))
        return {"pairs": pairs, **oracle_digests(config)}

    def run(self, config: OracleAgreementConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Judge, and compare; one record."""
        known = read_judged_pairs(config.pairs, extract_words=config.extract_words)
        drawn = known.draw(config.count, trial.generator("pairs"))
        oracle = build_oracle(config, run=trial.id, seed=trial.seed_for("errors"))
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
