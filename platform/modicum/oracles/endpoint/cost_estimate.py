"""What judging will take: requests, tokens, dollars and time, before anything is asked."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modicum.oracles.endpoint.budget import likely_tokens, most_prompt_tokens
from modicum.oracles.endpoint.client import EndpointOracle
from modicum.oracles.endpoint.ledger import open_to_read, recall
from modicum.oracles.protocol import Pair
from modicum.oracles.questions import Question

# An answer of one sentence and a letter, as the shipped templates ask for.
ANSWER_TOKENS = 60


@dataclass(frozen=True)
class Estimate:
    """A plan's cost.

    Attributes:
        requests: Requests to be sent, if each is answered the first time.
        remembered: Questions that the ledger answers already.
        prompt_tokens: Tokens to be read, at four characters a token.
        completion_tokens: Tokens to be written.
        dollars: Their price; None where it is not known.
        most_dollars: A bound: a token for each byte read, and answers as long as allowed.
        seconds: Time that the endpoint's rates leave; None where it states none.
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
    """What judging pairs will take. Asks nothing, and needs no key and no Ray.

    Args:
        oracle: Who is to be asked.
        pairs: What is to be judged.
        repeats: Opinions on each pair.
        answer_tokens: Tokens that an answer is taken to have.
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
