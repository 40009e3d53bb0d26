"""Estimate of the requests, tokens, dollars and time that judging will take."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modicum.oracles.endpoint.budget import likely_tokens, most_prompt_tokens
from modicum.oracles.endpoint.oracle import EndpointOracle
from modicum.oracles.ledger.database import open_to_read, recall
from modicum.oracles.protocol import Pair
from modicum.oracles.questions import Question

# Tokens of one sentence and a letter, for which the shipped templates ask.
ANSWER_TOKENS = 60


@dataclass(frozen=True)
class Estimate:
    """Estimated cost of a plan.

    Attributes:
        requests: Number of requests, if each is answered the first time.
        remembered: Number of questions that the ledger already answers.
        prompt_tokens: Tokens to be read, at four characters to a token.
        completion_tokens: Tokens to be written.
        dollars: Price of the tokens; None if the model's price is unknown.
        most_dollars: Upper bound of the price: a token for each byte read, and answers of the
            greatest length allowed. None if the model's price is unknown.
        seconds: Shortest time that the rate limits allow; None if there are none.
    """

    requests: int
    remembered: int
    prompt_tokens: int
    completion_tokens: int
    dollars: float | None
    most_dollars: float | None
    seconds: float | None


def estimate(
    oracle: EndpointOracle,
    pairs: Sequence[Pair],
    *,
    repeats: int = 1,
    answer_tokens: int = ANSWER_TOKENS,
) -> Estimate:
    """Estimate the cost of judging pairs. Nothing is sent; neither key nor Ray is needed.

    Args:
        oracle: The oracle that would judge.
        pairs: The pairs to judge.
        repeats: Number of opinions on each pair.
        answer_tokens: Assumed tokens of an answer.
    """
    questions: dict[str, Question] = {}
    for repeat in range(repeats):
        for both in oracle.questions(pairs, repeat=repeat):
            questions.update({q.key: q for q in both if q is not None})
    known = _answered(oracle.endpoint.ledger_file, questions)
    prompt = most = 0
    for key, question in questions.items():
        if key not in known:
            system, user = oracle.template.render(question.prompt, *question.shown)
            prompt += likely_tokens(system + user)
            most += most_prompt_tokens(system, user)
    requests = len(questions) - len(known)
    written = requests * min(answer_tokens, oracle.max_tokens)
    price = oracle.endpoint.prices.get(oracle.model)
    limits = oracle.endpoint.limits
    waits = []
    if limits.requests_per_minute is not None:
        waits.append(requests * 60 / limits.requests_per_minute)
    if limits.tokens_per_minute is not None:
        waits.append((prompt + written) * 60 / limits.tokens_per_minute)
    return Estimate(
        requests=requests,
        remembered=len(known),
        prompt_tokens=prompt,
        completion_tokens=written,
        dollars=None if price is None else price.of(prompt, written),
        most_dollars=None if price is None else price.of(most, requests * oracle.max_tokens),
        seconds=max(waits) if waits else None,
    )


def _answered(ledger: Path, questions: dict[str, Question]) -> set[str]:
    if not ledger.is_file():
        return set()
    connection = open_to_read(ledger)
    try:
        known = recall(connection, questions)
    except sqlite3.Error:
        return set()
    finally:
        connection.close()
    return {key for key, found in known.items() if found.verdict is not None}
