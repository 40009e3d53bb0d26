"""The gate's metrics for Prometheus, exported by Ray: questions, requests and spending."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence

from ray.util.metrics import Counter, Gauge, Histogram

from modicum.oracles.ledger.records import Settlement


class GateMetrics:
    """Counters and gauges of one gate, tagged with its name."""

    def __init__(self, gate: str) -> None:
        tags = {"gate": gate}
        self._requests = Counter(
            "modicum_oracle_requests", "Requests by their state.", ("gate", "state")
        )
        self._tokens = Counter(
            "modicum_oracle_tokens", "Tokens read and written.", ("gate", "kind")
        )
        self._dollars = Counter("modicum_oracle_dollars", "Dollars spent.", ("gate",))
        self._questions = Counter("modicum_oracle_questions", "Questions asked.", ("gate",))
        self._remembered = Counter(
            "modicum_oracle_ledger_answers", "Questions answered from the ledger.", ("gate",)
        )
        self._failures = Counter(
            "modicum_oracle_failures", "Questions without a judgement.", ("gate", "reason")
        )
        self._in_flight = Gauge("modicum_oracle_in_flight", "Requests under way.", ("gate",))
        self._waiting = Gauge("modicum_oracle_waiting", "Questions not yet sent.", ("gate",))
        self._latency = Histogram(
            "modicum_oracle_latency_seconds",
            "Time from sending a request to its answer.",
            boundaries=[0.1, 0.3, 1, 3, 10, 30, 100],
            tag_keys=("gate",),
        )
        metrics = (
            *(self._requests, self._tokens, self._dollars, self._questions, self._remembered),
            *(self._failures, self._in_flight, self._waiting, self._latency),
        )
        for metric in metrics:
            metric.set_default_tags(tags)

    def asked(self, count: int) -> None:
        """Count questions that have come in."""
        _add(self._questions, count)

    def from_ledger(self, count: int) -> None:
        """Count questions that the ledger answered."""
        _add(self._remembered, count)

    def failed(self, reason: str) -> None:
        """Count a question that was given up."""
        _add(self._failures, 1, reason=reason)

    def settled(self, settlements: Sequence[Settlement]) -> None:
        """Count settled requests, their tokens and their cost."""
        for state, count in Tally(s.state for s in settlements).items():
            _add(self._requests, count, state=state)
        _add(self._tokens, sum(s.prompt_tokens for s in settlements), kind="read")
        _add(self._tokens, sum(s.completion_tokens for s in settlements), kind="written")
        _add(self._dollars, sum(s.dollars for s in settlements))
        for settlement in settlements:
            if settlement.state in {"answered", "unreadable"} and settlement.latency > 0:
                self._latency.observe(settlement.latency)

    def level(self, in_flight: int, waiting: int) -> None:
        """Set the numbers of requests under way and of questions that wait."""
        self._in_flight.set(in_flight)
        self._waiting.set(waiting)


def _add(counter: object, amount: float, **tags: str) -> None:
    """Increment a counter; Ray's counters refuse zero."""
    if amount > 0:
        counter.inc(amount, tags=tags or None)  # type: ignore[attr-defined]
