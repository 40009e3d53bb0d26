"""The log of the endpoint's requests, and statistics of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


def question_digest(user: str, model: str, temperature: float | None) -> str:
    """Digest of a question's user message, model and temperature, 64 hexadecimal digits."""
    if temperature is not None:
        temperature = float(temperature)
    return hashlib.sha256(json.dumps([user, model, temperature]).encode()).hexdigest()


def busiest(times: Sequence[float], seconds: float) -> int:
    """Most of some ascending times in any window [t, t + seconds)."""
    most = first = 0
    for last, time in enumerate(times):
        while time - times[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


@dataclass(frozen=True)
class Log:
    """Requests for completions in the order of arrival, as columns.

    Attributes:
        arrived: time.monotonic() when the request had arrived in full.
        wall: time.time() then.
        finished: time.monotonic() when the answer was sent or the connection ended; None for
            requests under way.
        question: `question_digest`; "" for bodies that are no question.
        outcome: "answered"; a fault; "limit" for 429 by a limit; "abandoned" where the client went
            before the answer; the name of an error; "pending".
        status: HTTP status; 0 if none was sent.
        prompt_tokens: Tokens charged for reading; 0 if no answer was generated.
        completion_tokens: Tokens charged for writing.
        verdict: The letter in the answer, or None.
        maximum_concurrency: Most requests under way at once.
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
        """Number of requests by outcome."""
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
        """Number of requests for each question; only those with the given outcomes, if any."""
        pairs = zip(self.question, self.outcome, strict=True)
        return Counter(asked for asked, outcome in pairs if not outcomes or outcome in outcomes)

    def repeats(self, *outcomes: str) -> int:
        """Number of requests beyond the first for each question; see `asked`."""
        asked = self.asked(*outcomes)
        return asked.total() - len(asked)
