"""The experiment `oracle_agreement`: does an oracle agree with known judgements?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import modicum as md
from modicum_algorithms.preference.config import OracleAgreementConfig
from modicum_algorithms.preference.data.judged_pairs import read_known_winners
from modicum_algorithms.preference.experiments.judged_pairs import (
    ANSWER_METRICS,
    JudgedPairsExperiment,
    answer_metrics,
)
from modicum_algorithms.preference.oracles import open_oracle


class OracleAgreement(JudgedPairsExperiment[OracleAgreementConfig]):
    """Share of pairs for which an oracle prefers the known winner."""

    name = "oracle_agreement"
    version = "1"
    Config = OracleAgreementConfig
    metrics: ClassVar[Mapping[str, md.Metric]] = {
        "agreement": md.Metric("Share of judgements for the known winner.", goal="max"),
        "longer/agreement": md.Metric(
            "Share of pairs whose known winner is the longer completion: the agreement that "
            "counting characters would reach."
        ),
        "longer/judged": md.Metric("Share of judgements for the longer completion."),
        **ANSWER_METRICS,
    }

    def run(self, config: OracleAgreementConfig, trial: md.Trial) -> Iterator[md.Record]:
        """Judge the pairs and compare; one record."""
        known = read_known_winners(config.pairs, config.extract_words)
        drawn = known.draw(config.count, trial.generator("pairs"))
        with open_oracle(config, run=trial.id, seed=trial.seed_for("errors")) as oracle:
            answers = oracle.judge(drawn.pairs)
        metrics = answer_metrics(answers)
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
