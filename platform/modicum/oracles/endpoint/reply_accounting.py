"""Accounting for replies: their effect on rates, budgets and the ledger, and on the questions.

Pure: no clock, no input or output.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from modicum.oracles.endpoint.budget import Accounts
from modicum.oracles.endpoint.messages import Reply
from modicum.oracles.endpoint.open_questions import OpenQuestions, Ticket
from modicum.oracles.endpoint.pacing import Throttle
from modicum.oracles.endpoint.settings import Endpoint
from modicum.oracles.ledger.records import Amount, Settlement
from modicum.oracles.questions import read_verdict

# Failed connections to an endpoint that has never replied before all questions fail.
_MOST_UNREACHABLE = 3


class EndpointHealth:
    """An endpoint's reachability, and the waits before requests are repeated."""

    def __init__(self, endpoint: Endpoint, draws: random.Random) -> None:
        self._first_wait, self._longest_wait = endpoint.first_wait, endpoint.longest_wait
        self._draws = draws
        self.structured = endpoint.structured_output  # Until the endpoint refuses it.
        self._reached = False
        self._unreachable = 0
        self._throttled = 0  # Since the last answer.

    def observe(self, reply: Reply) -> None:
        """Take note of a reply."""
        if reply.outcome == "answered":
            self._throttled = 0
        if reply.outcome == "unreachable":
            self._unreachable += 1
        else:
            self._reached = True

    def is_hopeless(self, reply: Reply) -> bool:
        """True if a reply says that every further request would fail, too."""
        never_there = not self._reached and self._unreachable >= _MOST_UNREACHABLE
        return reply.outcome == "fatal" or (reply.outcome == "unreachable" and never_there)

    def pause_for_all(self) -> float:
        """Seconds of the pause after a rate limit that named no wait; doubles with each call."""
        self._throttled += 1
        return self.backoff(self._throttled - 1)

    def backoff(self, doublings: int) -> float:
        """Seconds of an exponential backoff.

        The jitter (a factor from 0.5 to 1) spreads requests out that failed together.
        """
        wait = min(self._longest_wait, self._first_wait * 2.0 ** min(doublings, 60))
        return wait * self._draws.uniform(0.5, 1.0)


@dataclass(frozen=True)
class Settled:
    """A request that came back: its ticket, its settlement for the ledger, and the reply."""

    ticket: Ticket
    settlement: Settlement
    reply: Reply


class ReplyAccounting:
    """Replies of one endpoint; the arguments are shared with its `Scheduler`."""

    def __init__(
        self,
        endpoint: Endpoint,
        in_flight: dict[int, Ticket],
        questions: OpenQuestions,
        accounts: Accounts,
        throttle: Throttle,
        health: EndpointHealth,
    ) -> None:
        self._endpoint = endpoint
        self._in_flight = in_flight
        self._questions = questions
        self._accounts = accounts
        self._throttle = throttle
        self._health = health

    def account(self, replies: Iterable[Reply], now: float) -> list[Settled]:
        """Account for replies in rates and budgets.

        Returns:
            The requests that came back. Their settlements are to be written; then pass them to
            `conclude` or `not_settled`. Replies to settled requests are left out: they come from
            workers that were taken for dead.
        """
        settled = []
        for reply in replies:
            ticket = self._in_flight.pop(reply.number, None)
            if ticket is not None:
                settled.append(Settled(ticket, self._settlement(ticket, reply, now), reply))
        return settled

    def _settlement(self, ticket: Ticket, reply: Reply, now: float) -> Settlement:
        if reply.wait is not None:
            self._throttle.pause(reply.wait, now)
        self._health.observe(reply)
        if reply.outcome == "answered":
            return self._settlement_of_answer(ticket, reply)
        ticket.attempts += reply.outcome != "unstructured"
        paused = reply.wait is not None or now < self._throttle.paused_until
        if reply.outcome == "throttled" and not paused:
            self._throttle.pause(self._health.pause_for_all(), now)
        if self._health.is_hopeless(reply):  # Nothing more is sent while this is written down.
            self._questions.stop(ticket.question.model, reply.message)
        lost = reply.outcome == "lost"
        self._settle_accounts(ticket, ticket.most if lost else Amount())
        return Settlement(
            request=reply.number,
            state="lost" if lost else "refused",
            error=reply.message,
            latency=reply.latency,
        )

    def _settlement_of_answer(self, ticket: Ticket, reply: Reply) -> Settlement:
        prompt, completion = reply.prompt_tokens, reply.completion_tokens
        if prompt is None or completion is None:  # Not counted by the endpoint: all is spent.
            prompt, completion = ticket.most.tokens - ticket.max_tokens, ticket.max_tokens
        dollars = self._endpoint.dollars(ticket.question.model, prompt, completion)
        self._throttle.settle(ticket.likely, prompt + completion)
        self._settle_accounts(ticket, Amount(1, prompt + completion, dollars))
        ticket.prompt_tokens += prompt
        ticket.completion_tokens += completion
        verdict = read_verdict(reply.text) if reply.complete else None
        ticket.unreadable += verdict is None
        return Settlement(
            request=reply.number,
            state="unreadable" if verdict is None else "answered",
            prompt_tokens=prompt,
            completion_tokens=completion,
            dollars=dollars,
            latency=reply.latency,
            answer=reply.text,
            verdict=None if verdict is None else verdict.letter,
            rationale=None if verdict is None else verdict.rationale,
        )

    def _settle_accounts(self, ticket: Ticket, actual: Amount) -> None:
        self._accounts.settle(ticket.run, ticket.most, actual)
        ticket.spent += actual

    def not_settled(self, settled: Iterable[Settled], error: BaseException) -> None:
        """Fail all questions, because settlements could not be written."""
        for each in settled:
            each.ticket.sending = False
        self._questions.fail_all(error)

    def conclude(self, settled: Iterable[Settled], now: float) -> None:
        """Answer questions, or have them asked again, now that settlements are durable."""
        for each in settled:
            each.ticket.sending = False
            self._conclude(each.ticket, each.settlement, each.reply, now)

    def _conclude(self, ticket: Ticket, settled: Settlement, reply: Reply, now: float) -> None:
        questions = self._questions
        if settled.state == "answered":
            said = {"letter": settled.verdict, "rationale": settled.rationale}
            questions.resolve(ticket, ticket.costing(**said, latency=settled.latency))
        elif settled.state == "unreadable":
            questions.unreadable(ticket)
        elif self._health.is_hopeless(reply):
            questions.ask_again(ticket)  # Fails, unless a client has asked anew meanwhile.
        elif reply.outcome == "too_long":
            questions.give_up(ticket, "too_long", reply.message)
        elif reply.outcome == "unstructured" and ticket.structured:
            self._health.structured = False
            questions.ask_again(ticket)
        elif reply.outcome in {"rejected", "unstructured"}:
            questions.give_up(ticket, "rejected", reply.message)
        elif ticket.attempts >= self._endpoint.attempts:
            tries = f"{ticket.attempts} requests, the last one: {reply.message}"
            questions.give_up(ticket, "unavailable", f"no answer after {tries}")
        elif reply.outcome == "throttled":  # All requests are paused already.
            questions.ask_again(ticket)
        else:
            questions.ask_again(ticket, now + self._health.backoff(ticket.attempts - 1))
