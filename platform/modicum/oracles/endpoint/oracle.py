"""An oracle behind an endpoint, as a program uses it, and the estimate of its cost."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from modicum.errors import InputError
from modicum.oracles.endpoint.budget import Budget, likely_tokens, most_prompt_tokens
from modicum.oracles.endpoint.messages import Answer
from modicum.oracles.endpoint.settings import Endpoint
from modicum.oracles.endpoint.templates import Template
from modicum.oracles.ledger.database import open_to_read, recall
from modicum.oracles.protocol import Failure, Judgement, Pair, other, winner_of
from modicum.oracles.questions import Question

if TYPE_CHECKING:
    from modicum.oracles.endpoint.connection import GateConnection


class EndpointOracle:
    """A language model behind an OpenAI-compatible endpoint.

    All oracles on a cluster that name the same endpoint share its gate, and so its limits, budget
    and ledger. The oracle uses the Ray cluster to which the program is connected, or starts one.

    Args:
        model: The endpoint's name for the model.
        template: Wording of the questions: a shipped template's name, a file, or a `Template`.
        endpoint: Address, limits and prices of the endpoint.
        temperature: Sampling temperature, from 0 to 2.
        max_tokens: Most tokens that an answer may have, with its reason.
        both_orders: Ask in both orders, and report whether the winners agree. The winner is that
            of the order which the pair's seed drew.
        run: Name under which spending is added up, over restarts, too.
        budget: Budget of the run.

    Raises:
        InputError: A value is not allowed, or the budget needs a run's name or a price.
    """

    def __init__(
        self,
        model: str,
        template: str | Template,
        *,
        endpoint: Endpoint | None = None,
        temperature: float = 0.0,
        max_tokens: int = 256,
        both_orders: bool = False,
        run: str | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.model = model
        self.template = Template.load(template) if isinstance(template, str) else template
        self.endpoint = endpoint or Endpoint()
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.both_orders = both_orders
        self.run = run or "unnamed"
        self.budget = budget or Budget()
        if not model:
            raise InputError("model: name a model that the endpoint serves")
        if not 0 <= temperature <= 2:
            raise InputError(f"temperature: must be from 0 to 2, got {temperature!r}")
        if max_tokens < 1:
            raise InputError(f"max_tokens: must be at least 1, got {max_tokens!r}")
        if run is None and self.budget != Budget():
            raise InputError("run: name the run that has this budget, so that a restart finds it")
        capped = self.budget.dollars is not None or self.endpoint.budget.dollars is not None
        if capped and model not in self.endpoint.prices:
            raise InputError(
                f"prices: a budget in dollars needs the price of {model!r} (dollars per million "
                "tokens, as {input: ..., output: ...})"
            )
        self._connection: GateConnection | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model

    @property
    def version(self) -> str:
        """The wording and the temperature."""
        return f"{self.template.name} {self.template.digest}, temperature {self.temperature:g}"

    def questions(
        self, pairs: Sequence[Pair], *, repeat: int = 0
    ) -> list[tuple[Question, Question | None]]:
        """The questions about each pair: in the order drawn, and in the other if both are asked.

        Raises:
            InputError: A pair's text is no valid Unicode.
        """
        return [self._questions(index, pair, repeat) for index, pair in enumerate(pairs)]

    def _questions(self, index: int, pair: Pair, repeat: int) -> tuple[Question, Question | None]:
        for field in ("prompt", "first", "second"):
            try:
                getattr(pair, field).encode("utf-8")
            except UnicodeEncodeError:
                raise InputError(f"pairs: {field} of pair {index} is not valid text") from None
        drawn, turned = (
            Question.about(
                pair,
                order,
                model=self.model,
                temperature=self.temperature,
                template=self.template.digest,
                repeat=repeat,
            )
            for order in (pair.order, other(pair.order))
        )
        return drawn, turned if self.both_orders else None

    def judge(self, pairs: Sequence[Pair], *, repeat: int = 0) -> list[Judgement | Failure]:
        """Judge pairs, in order; every answer is in the ledger before this returns.

        The call blocks. If the program is killed and started again, it asks only the questions that
        were not answered.

        Raises:
            InputError: No question can be asked: no key, a wrong address or model, no credit, or a
                ledger that cannot be used. The answers so far are in the ledger.
        """
        asked = self.questions(pairs, repeat=repeat)
        distinct = {q.key: q for both in asked for q in both if q is not None}
        answers = self._connected().ask(list(distinct.values()), self.template, self.max_tokens)
        judged: list[Judgement | Failure] = []
        for drawn, turned in asked:
            verdicts = [answers[q.key] for q in (drawn, turned) if q is not None]
            judged.append(self._judgement(drawn, *verdicts))
            for question in (drawn, turned):
                if question is not None:  # The same pair once more costs nothing.
                    answers[question.key] = _as_cached(answers[question.key])
        return judged

    def _judgement(
        self, question: Question, answer: Answer, turned: Answer | None = None
    ) -> Judgement | Failure:
        cost = answer.dollars + (0.0 if turned is None else turned.dollars)
        if answer.letter is None:
            assert answer.failure is not None
            return Failure(
                reason=answer.failure,
                message=answer.message,
                oracle=self.name,
                version=self.version,
                cost=cost,
            )
        winner = winner_of(answer.letter, question.order)
        judgement = Judgement(
            winner=winner,
            rationale=answer.rationale,
            oracle=self.name,
            version=self.version,
            order_shown=question.order,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            cost=cost,
            latency=answer.latency,
            cached=answer.cached,
        )
        if turned is None:
            return judgement
        same = None
        if turned.letter is not None:
            same = winner == winner_of(turned.letter, other(question.order))
        return replace(
            judgement,
            prompt_tokens=answer.prompt_tokens + turned.prompt_tokens,
            completion_tokens=answer.completion_tokens + turned.completion_tokens,
            latency=max(answer.latency, turned.latency),
            cached=answer.cached and turned.cached,
            consistent=same,
        )

    def _connected(self) -> GateConnection:
        # The connection imports Ray.
        from modicum.oracles.endpoint.connection import GateConnection

        if self._connection is None:
            self._connection = GateConnection(self.endpoint, self.run, self.budget)
        return self._connection

    def status(self) -> dict[str, Any]:
        """The gate's status: clients, questions waiting and under way, spending, workers."""
        return self._connected().lease().status()

    def close(self) -> None:
        """Let the gate go; it ends when its last client has been gone for its lease."""
        if self._connection is not None:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the connection: another process makes its own."""
        return {**self.__dict__, "_connection": None}


def _as_cached(answer: Answer) -> Answer:
    return replace(
        answer, prompt_tokens=0, completion_tokens=0, dollars=0.0, latency=0.0, cached=True
    )


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
    answer_tokens: int = 60,  # One sentence and a letter, as the shipped templates ask.
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
