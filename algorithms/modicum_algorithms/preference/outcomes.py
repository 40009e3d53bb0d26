"""What every experiment says of the answers that it got."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import modicum as md

OUTCOME_METRICS: Mapping[str, md.Metric] = {
    "failures": md.Metric("Share of answers without a judgement; none was made up.", goal="min"),
    "cached": md.Metric("Share of judgements that were in the ledger.", timing=True),
    "cost": md.Metric("Spent now.", unit="dollars", goal="min", timing=True),
    "order_consistency": md.Metric(
        "Share of pairs with the same winner in both orders, of those asked in both.", goal="max"
    ),
    "first_shown_wins": md.Metric(
        "Share of judgements for the completion that was shown first; 1/2 without a bias."
    ),
}


def outcome_metrics(
    answers: Sequence[md.oracles.Judgement | md.oracles.Failure],
) -> dict[str, float]:
    """The metrics of `OUTCOME_METRICS` that apply to some answers."""
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
