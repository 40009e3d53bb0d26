"""What clients, the gate and its workers tell each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from modicum.oracles.endpoint.templates import Template
from modicum.oracles.protocol import Letter, Reason
from modicum.oracles.questions import Question

Outcome = Literal[
    "answered",
    "throttled",  # The rate limit of the endpoint: everybody waits.
    "failed",  # An error of the endpoint's, uncharged: this request waits.
    "unreachable",  # Nothing listens: this request waits, and all give up if nothing ever did.
    "lost",  # Sent, and no readable answer: may have been charged.
    "too_long",
    "rejected",
    "unstructured",  # The endpoint knows no structured output.
    "fatal",  # Asking on is useless, for everybody: no credit, no such model, a bad key.
]


class GateLeavingError(Exception):
    """The gate ends, or let this client go: a client finds or starts a gate, and asks again."""


@dataclass(frozen=True)
class Batch:
    """Questions with one wording, from a client to the gate.

    Attributes:
        client: The client, under whose lease they are asked, and whose run pays.
        template: Their wording.
        max_tokens: Tokens that an answer may have.
        questions: The questions.
    """

    client: str
    template: Template
    max_tokens: int
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a client gets for a question: a letter, or the reason why there is none.

    Attributes:
        letter: The verdict as shown.
        rationale: The reason given with it.
        failure: Why there is no verdict.
        message: A sentence about that.
        prompt_tokens: Over all requests made for it now.
        completion_tokens: Over all requests made for it now.
        dollars: Spent on it now.
        latency: Seconds from sending the last request to its answer.
        cached: Whether it was in the ledger.
    """

    letter: Letter | None = None
    rationale: str | None = None
    failure: Reason | None = None
    message: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dollars: float = 0.0
    latency: float = 0.0
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One request to an endpoint, by its number in the ledger."""

    number: int
    model: str
    system: str
    user: str
    temperature: float
    max_tokens: int
    structured: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came of a request.

    Attributes:
        number: The request's.
        outcome: See `Outcome`.
        text: The answer's text.
        complete: False where the answer was cut off at its limit of tokens.
        prompt_tokens: As the endpoint counted; None where it did not say.
        completion_tokens: As the endpoint counted; None where it did not say.
        latency: Seconds from sending to the answer.
        wait: Seconds for which the endpoint asks everybody to send nothing; None if it does not.
        message: What went wrong, without the key.
    """

    number: int
    outcome: Outcome
    text: str = ""
    complete: bool = True
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    latency: float = 0.0
    wait: float | None = None
    message: str = ""
