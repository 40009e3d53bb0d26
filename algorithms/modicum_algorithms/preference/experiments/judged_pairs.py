"""Base of the experiments on pairs with a known winner, and the metrics of an oracle's answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import modicum as md
from modicum_algorithms.preference.config import JudgedPairsConfig
from modicum_algorithms.preference.data.judged_pairs import pairs_file
from modicum_algorithms.preference.oracles import check_oracle, oracle_digests

Answers = Sequence[md.oracles.Judgement | md.oracles.Failure]

ANSWER_METRICS: Mapping[str, md.Metric] = {
    "failures": md.Metric("Share of answers without a judgement; none is invented.", goal="min"),
    "cached": md.Metric("Share of judgements that came from the ledger.", timing=True),
    "cost": md.Metric("Money spent in this trial.", unit="dollars", goal="min", timing=True),
    "order_consistency": md.Metric(
        "Share of pairs with the same winner in both orders, of the pairs asked in both.",
        goal="max",
    ),
    "first_shown_wins": md.Metric(
        "Share of judgements for the completion shown first; 1/2 without a position bias."
    ),
}

C = TypeVar("C", bound=JudgedPairsConfig)


class JudgedPairsExperiment(md.Experiment[C]):
    """An experiment that asks an oracle about pairs with a known winner."""

    budget_unit = "oracle_calls"

    def check(self, config: C) -> None:
        """Refuse settings whose oracle or pairs are missing."""
        check_oracle(config)
        pairs_file(config.pairs)

    def data_digests(self, config: C) -> Mapping[str, str]:
        """Digests of the pairs and of the data that define the oracle."""
        pairs = md.data.digest_files([pairs_file(config.pairs)])
        return {"pairs": pairs, **oracle_digests(config)}


def answer_metrics(answers: Answers) -> dict[str, float]:
    """The metrics of `ANSWER_METRICS` that are defined for the given answers."""
    judged = [answer for answer in answers if isinstance(answer, md.oracles.Judgement)]
    found = {
        "failures": 1 - len(judged) / len(answers),
        "cost": sum(answer.cost for answer in answers),
    }
    if judged:
        found["cached"] = sum(answer.cached for answer in judged) / len(judged)
        shown_first = [(a.winner == "first") == (a.order_shown == "given") for a in judged]
        found["first_shown_wins"] = sum(shown_first) / len(judged)
    both = [answer.consistent for answer in judged if answer.consistent is not None]
    if both:
        found["order_consistency"] = sum(both) / len(both)
    return found
