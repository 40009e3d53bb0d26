"""Pairs of completions: as sampled from the policy, and as judged by the oracle.

Judgements (line 10 of algorithm 2) are kept in the journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import modicum as md
from modicum_algorithms.preference.data.prompts import Ids

Two = tuple[float, float]
Answer = dict[str, Any]
# Answers are journalled in portions, so that an oracle without a ledger is asked nothing twice.
_QUESTIONS_AT_ONCE = 128
# Reasons of a failure that may be gone when the question is asked again.
_PASSING = ("unavailable", "budget")


@dataclass(frozen=True)
class SampledPair:
    """Two completions of a prompt, sampled from the policy of a round.

    Attributes:
        place: Index of the prompt among the training prompts.
        first: Tokens of a completion.
        second: Tokens of another completion of the same prompt.
        log_probabilities: log p_θ of both completions when they were sampled.
        reference: log p_θ0 of both, once computed.
        rewards: Implicit rewards of both (equation 6.5), once computed.
    """

    place: int
    first: Ids
    second: Ids
    log_probabilities: Two
    reference: Two | None = None
    rewards: Two | None = None

    def as_json(self) -> dict[str, Any]:
        """The pair as the journal keeps it: as sampled."""
        return {
            "place": self.place,
            "first": list(self.first),
            "second": list(self.second),
            "log_probabilities": list(self.log_probabilities),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> SampledPair:
        """The inverse of `as_json`."""
        first, second = row["log_probabilities"]
        return cls(row["place"], tuple(row["first"]), tuple(row["second"]), (first, second))


@dataclass(frozen=True)
class JudgedPair:
    """An element of the preference dataset X_P.

    Attributes:
        round: Round that acquired it, from 1.
        place: Index of the prompt among the training prompts.
        first: Tokens of a completion.
        second: Tokens of another completion of the same prompt.
        reference: log p_θ0 of both completions.
        rewards: Implicit rewards of both before training on the pair.
        winner: The preferred completion, `first` or `second`.
        rationale: Reason that the oracle gave.
        order: Order in which the oracle saw the pair, `given` or `swapped`.
    """

    round: int
    place: int
    first: Ids
    second: Ids
    reference: Two
    rewards: Two
    winner: str
    rationale: str | None
    order: str | None


class OracleFailedError(Exception):
    """The oracle is unavailable or out of budget; the answers so far are kept."""


@dataclass(frozen=True)
class Judge:
    """The oracle on the first worker; the others receive its answers.

    Attributes:
        oracle: The oracle; None on all workers but the first.
        worker: The calling process.
    """

    oracle: md.oracles.Oracle | None
    worker: md.training.Worker

    def ask(self, pairs: Sequence[md.oracles.Pair], step: str) -> list[Answer]:
        """One answer for each pair; no pair is asked about twice, even if the trial restarts.

        Args:
            pairs: Pairs, the same on all workers.
            step: Name of the step in the journal.

        Returns:
            For each pair: `winner` (first, second, or None without a judgement), `reason` of a
            failure, `rationale`, `order` in which the pair was shown, `cost` in dollars.

        Raises:
            OracleFailedError: The endpoint is unavailable, or the spending limit is reached.
        """
        answers: list[Answer] = []
        for start in range(0, len(pairs), _QUESTIONS_AT_ONCE):
            some = pairs[start : start + _QUESTIONS_AT_ONCE]
            ask = partial(self.worker.alone, partial(self._ask, some))
            answers += self.worker.once(f"{step}-{start:06d}", ask)
        return answers

    def _ask(self, pairs: Sequence[md.oracles.Pair]) -> list[Answer]:
        assert self.oracle is not None
        answers = self.oracle.judge(pairs)
        failures = [answer for answer in answers if isinstance(answer, md.oracles.Failure)]
        failed = [failure for failure in failures if failure.reason in _PASSING]
        if failed:
            raise OracleFailedError(
                f"oracle: {len(failed)} of {len(pairs)} pairs have no answer "
                f"({failed[0].message}); run the same command again to continue from here"
            )
        return [_as_json(answer) for answer in answers]


def _as_json(answer: md.oracles.Judgement | md.oracles.Failure) -> Answer:
    if isinstance(answer, md.oracles.Failure):
        return {"winner": None, "reason": answer.reason, "rationale": None, "order": None,
                "cost": answer.cost}  # fmt: skip
    return {
        "winner": answer.winner,
        "reason": None,
        "rationale": answer.rationale,
        "order": answer.order_shown,
        "cost": answer.cost,
    }
