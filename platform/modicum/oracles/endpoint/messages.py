"""Messages between clients, the gate and its workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from modicum.oracles.endpoint.templates import Template
from modicum.oracles.protocol import Letter, Reason
from modicum.oracles.questions import Question

Outcome = Literal[
    "answered",
    "throttled",  # The endpoint's rate limit: all requests wait.
    "failed",  # An error of the endpoint, not charged: this request waits.
    "unreachable",  # Nothing listens: this request waits; all fail if nothing ever listened.
    "lost",  # Sent, but without a readable answer: may have been charged.
    "too_long",
    "rejected",
    "unstructured",  # The endpoint does not support structured output.
    "fatal",  # Every request would fail: no credit, no such model, a bad key.
]


class GateLeavingError(Exception):
    """The gate ends, or has let this client go, which then finds or starts a gate."""


@dataclass(frozen=True)
class Batch:
    """Questions with one wording, from a client to the gate."""

    client: str  # The client that asks; its run pays.
    template: Template
    max_tokens: int  # Most tokens that an answer may have.
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The gate's answer to a question: a letter, or the reason why there is none."""

    letter: Letter | None = None  # The verdict, in the order in which the completions were shown.
    rationale: str | None = None
    failure: Reason | None = None  # The reason why there is no verdict.
    message: str = ""  # One sentence about the failure.
    prompt_tokens: int = 0  # Tokens read in all requests of this attempt at the question.
    completion_tokens: int = 0  # Tokens written in all requests of this attempt at the question.
    dollars: float = 0.0  # Dollars spent in this attempt at the question.
    latency: float = 0.0  # Seconds from sending the last request to its answer.
    cached: bool = False  # Whether the answer was in the ledger.


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the endpoint, by its number in the ledger."""

    number: int
    model: str
    system: str
    user: str
    temperature: float
    max_tokens: int
    structured: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The result of a request."""

    number: int  # Number of the request in the ledger.
    outcome: Outcome
    text: str = ""
    complete: bool = True  # False if the answer was cut off at the limit of tokens.
    # Tokens read, as the endpoint counted them; None if it did not say.
    prompt_tokens: int | None = None
    # Tokens written, as the endpoint counted them; None if it did not say.
    completion_tokens: int | None = None
    latency: float = 0.0  # Seconds from sending the request to its answer.
    # Seconds during which the endpoint asks all clients to send nothing; None if it does not ask.
    wait: float | None = None
    message: str = ""  # Description of the error, without the key.
