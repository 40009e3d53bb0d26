"""Where a human's answers are kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from modicum.oracles.endpoint.budget import Amount
from modicum.oracles.endpoint.ledger import Ledger, Reservation, Settlement
from modicum.oracles.protocol import Letter
from modicum.oracles.questions import Question
from modicum.oracles.verdicts import Verdict


class AnswerStore(Protocol):
    """Answers by their question's key, durable when a method returns."""

    def answered(self, keys: Iterable[str]) -> dict[str, Verdict]:
        """The answers that there are among those to some questions."""
        ...

    def record(
        self, question: Question, letter: Letter, rationale: str | None, latency: float
    ) -> None:
        """Keep an answer; `latency` is in seconds. Nothing is kept if it raises."""
        ...

    def withdraw(self, key: str) -> None:
        """Take a question's answer back."""
        ...


class LedgerStore:
    """Answers in a ledger, where a human's stand beside those of models.

    Args:
        ledger: Open for writing.
        run: What the answers are booked under.
    """

    def __init__(self, ledger: Ledger, run: str = "") -> None:
        self._ledger = ledger
        self._run = run

    def answered(self, keys: Iterable[str]) -> dict[str, Verdict]:
        """As in `AnswerStore`."""
        known = self._ledger.recall(keys)
        return {
            key: Verdict(found.verdict, found.rationale)
            for key, found in known.items()
            if found.verdict is not None
        }

    def record(
        self, question: Question, letter: Letter, rationale: str | None, latency: float
    ) -> None:
        """As in `AnswerStore`."""
        [request] = self._ledger.write([Reservation(question, self._run, Amount())], [])
        answered = Settlement(
            request=request,
            state="answered",
            latency=latency,
            verdict=letter,
            rationale=rationale,
        )
        self._ledger.write([], [answered])

    def withdraw(self, key: str) -> None:
        """As in `AnswerStore`."""
        self._ledger.withdraw(key)
