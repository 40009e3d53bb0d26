"""What the endpoint saw, and what follows from it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


def question_digest(user: str, model: str, temperature: float | None) -> str:
    """64 hexadecimal digits of a question: the user's message, the model and the temperature."""
    if temperature is not None:
        temperature = float(temperature)
    return hashlib.sha256(json.dumps([user, model, temperature]).encode()).hexdigest()


def busiest(times: Sequence[float], seconds: float) -> int:
    """Most of the times, which ascend, in any window [t, t + seconds)."""
    most = first = 0
    for last, time in enumerate(times):
        while time - times[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


@dataclass(frozen=True)
class Log:
    """Requests for completions, in the order of their arrival; a sequence for each column.

    Attributes:
        arrived: time.monotonic() when the request had arrived in full.
        wall: time.time() then.
        finished: time.monotonic() when the answer was sent or the connection ended; None if that
            is to come.
        question: `question_digest`; "" for what could not be read.
        outcome: "answered"; a fault; "limit" for 429 by a limit; "abandoned" where the client went
            before the answer; the name of an error; "pending".
        status: HTTP's; 0 where none was sent.
        prompt_tokens: Charged; 0 where no answer was generated.
        completion_tokens: Charged.
        verdict: The letter that the answer names, or None.
        maximum_concurrency: Most requests that had arrived and were not finished.
    """

    arrived: list[float]
    wall: list[float]
    finished: list[float | None]
    question: list[str]
    outcome: list[str]
    status: list[int]
    prompt_tokens: list[int]
    completion_tokens: list[int]
    verdict: list[str | None]
    maximum_concurrency: int

    def __len__(self) -> int:
        return len(self.arrived)

    @property
    def outcomes(self) -> Counter[str]:
        """How many requests had each outcome."""
        return Counter(self.outcome)

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens of prompts and of completions that were charged."""
        return sum(self.prompt_tokens), sum(self.completion_tokens)

    @property
    def rate(self) -> float:
        """Requests a second between the first arrival and the last."""
        return (len(self) - 1) / (self.arrived[-1] - self.arrived[0])

    def busiest(self, seconds: float) -> int:
        """Most arrivals in any window [t, t + seconds)."""
        return busiest(self.arrived, seconds)

    def asked(self, *outcomes: str) -> Counter[str]:
        """How often each question was asked; only requests with these outcomes if any is named."""
        pairs = zip(self.question, self.outcome, strict=True)
        return Counter(asked for asked, outcome in pairs if not outcomes or outcome in outcomes)

    def repeats(self, *outcomes: str) -> int:
        """Requests beyond the first of each question, among those with these outcomes."""
        asked = self.asked(*outcomes)
        return asked.total() - len(asked)
