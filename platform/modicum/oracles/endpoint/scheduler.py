"""The gate's decisions as a pure state machine: no clock, no Ray, no input or output.

A question passes these steps. It is joined with the same question under way, or answered from the
ledger; queued under its client; admitted when rate, concurrency and budget allow it; reserved in
the ledger; sent; settled in the ledger; and only then answered. The caller (`Gate`) brings the
time, does the input and output between the steps, and reports the results.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from modicum.oracles.endpoint.budget import Accounts, Budget, most_prompt_tokens
from modicum.oracles.endpoint.fair_queue import Ticket
from modicum.oracles.endpoint.health import EndpointHealth
from modicum.oracles.endpoint.leases import Leases
from modicum.oracles.endpoint.messages import Batch, GateLeavingError, Reply, Request
from modicum.oracles.endpoint.open_questions import OpenQuestions
from modicum.oracles.endpoint.pacing import Throttle
from modicum.oracles.endpoint.settings import Endpoint
from modicum.oracles.endpoint.templates import RESPONSE_FORMAT_BYTES
from modicum.oracles.ledger.records import Amount, Settlement
from modicum.oracles.protocol import Reason
from modicum.oracles.verdicts import read_verdict


@dataclass(frozen=True)
class Settled:
    """A request that came back: its ticket, its settlement for the ledger, and the reply."""

    ticket: Ticket
    settlement: Settlement
    reply: Reply


class Scheduler:
    """Questions of all clients of one endpoint.

    Args:
        endpoint: Limits, prices, budget and attempts.
        spent: Spending of all runs so far.
        draws: Source of jitter.
        on_failure: Called with the reason whenever a question is given up.

    Attributes:
        questions: The open questions.
        accounts: Accounts of the endpoint and of all runs.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        spent: Amount,
        *,
        draws: random.Random,
        on_failure: Callable[[Reason], None] = lambda reason: None,
    ) -> None:
        self.questions = OpenQuestions(on_failure)
        self.accounts = Accounts(endpoint.budget, spent)
        self._endpoint = endpoint
        self._leases = Leases()
        self._throttle = Throttle.of(
            endpoint.limits.requests_per_minute, endpoint.limits.tokens_per_minute
        )
        self._health = EndpointHealth(endpoint, draws)
        self._structured = endpoint.structured_output
        self._in_flight: dict[int, Ticket] = {}
        self._reserving = 0
        self._idle_since: float | None = None

    # Clients.

    def attach(self, client: str, run: str, budget: Budget, now: float) -> None:
        """Take a client in, whose questions are paid for by a run with an open account.

        Raises:
            InputError: An attached client of the same run has another budget.
        """
        self.accounts.set_budget(run, budget, fixed=self._leases.has_run(run))
        self._leases.attach(client, run, now)
        self.questions.queue.open(client)

    def renew(self, client: str, now: float) -> bool:
        """Renew a client's lease; False if the client has none any more."""
        return self._leases.renew(client, now)

    def detach(self, client: str, now: float) -> None:
        """Let a client go; unsent questions for which no other client waits are given up."""
        self._leases.detach(client)
        self._idle_since = now
        self.questions.leave(client)

    def expire(self, now: float) -> None:
        """Detach the clients whose leases have run out."""
        for client in self._leases.expired(now):
            self.detach(client, now)

    def idle_seconds(self, now: float) -> float:
        """Seconds since a call last found a client attached or a request under way."""
        if self._leases or self._in_flight or self._idle_since is None:
            self._idle_since = now
        return now - self._idle_since

    def ask(self, batch: Batch) -> tuple[list[Ticket], dict[str, Ticket]]:
        """Register a client's questions; see `OpenQuestions.ask`.

        Raises:
            GateLeavingError: The client is not attached.
        """
        run = self._leases.run_of(batch.client)
        if run is None:
            raise GateLeavingError
        return self.questions.ask(batch, run)

    @property
    def clients(self) -> int:
        """Number of attached clients."""
        return len(self._leases)

    @property
    def in_flight(self) -> int:
        """Number of requests under way."""
        return len(self._in_flight)

    @property
    def waiting(self) -> int:
        """Number of questions that are not under way."""
        return len(self.questions) - len(self._in_flight)

    # Sending.

    def admit(self, now: float) -> tuple[list[Ticket], float | None]:
        """Choose the questions to send now, clients taking turns, and reserve their cost.

        Returns:
            Tickets whose reservations are to be written and then passed to `reserved` or
            `not_reserved`; and the seconds after which to call again at the latest, None for no
            such limit.
        """
        queue = self.questions.queue
        for due in queue.due(now):
            self.questions.enqueue(due, in_front=True)
        waits = [] if queue.next_due is None else [queue.next_due - now]
        free = self._endpoint.limits.concurrent_requests - len(self._in_flight) - self._reserving
        admitted: list[Ticket] = []
        turns = queue.turns()
        while turns and len(admitted) < free:
            pause = self._throttle.wait(now)
            if pause > 0:
                waits.append(pause)
                break
            client = turns.popleft()
            ticket = queue.first(client)
            assert ticket is not None
            if not ticket.answer.done() and self._reserve(ticket):
                self._throttle.admit(ticket.likely, now)
                admitted.append(ticket)
            elif not ticket.answer.done():
                if ticket.client == client:
                    continue  # The ticket waits until requests under way are settled.
                queue.add(ticket)  # Another client pays, whose turn is the next.
                waits.append(0.0)
            queue.remove_first(client)
            if queue.first(client) is not None:
                turns.append(client)
        if admitted:
            queue.end_turn(admitted[-1].client)
        self._reserving += len(admitted)
        return admitted, min(waits, default=None)

    def _reserve(self, ticket: Ticket) -> bool:
        """Reserve the most that a question's next request can cost.

        If a budget lacks it and no request under way might return something, another run that
        waits for the same question pays; if there is none, the question fails.
        """
        messages = [message for message in (ticket.system, ticket.user) if message]
        prompt = most_prompt_tokens(*messages) + (RESPONSE_FORMAT_BYTES if self._structured else 0)
        dollars = self._endpoint.dollars(ticket.question.model, prompt, ticket.max_tokens)
        most = Amount(1, prompt + ticket.max_tokens, dollars)
        lack = self.accounts.lack(ticket.run, most)
        if lack is not None:
            if lack.final and not self._let_another_pay(ticket, most):
                message = f"too little is left of the {lack.budget}"
                self.questions.give_up(ticket, "budget", message)
            return False
        self.accounts.reserve(ticket.run, most)
        ticket.most, ticket.structured, ticket.sending = most, self._structured, True
        return True

    def _let_another_pay(self, ticket: Ticket, most: Amount) -> bool:
        for client in sorted(ticket.waiters):
            run = self._leases.run_of(client)
            if run is None or run == ticket.run:
                continue
            if self.accounts.lack(run, most) is None:
                ticket.client, ticket.run = client, run
                return True
        return False

    def reserved(self, tickets: Sequence[Ticket], numbers: Sequence[int]) -> list[Request]:
        """Requests to send, now that their reservations are durable under these numbers."""
        self._reserving -= len(tickets)
        self._in_flight.update(zip(numbers, tickets, strict=True))
        return [ticket.request(number) for number, ticket in zip(numbers, tickets, strict=True)]

    def not_reserved(self, tickets: Sequence[Ticket], error: BaseException) -> None:
        """Fail all questions, because reservations could not be written."""
        self._reserving -= len(tickets)
        for ticket in tickets:
            self._settle_accounts(ticket, Amount())
            ticket.sending = False
        self.questions.fail_all(error)

    # Replies.

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
            self.questions.stop(ticket.question.model, reply.message)
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
        self.accounts.settle(ticket.run, ticket.most, actual)
        ticket.spent += actual

    def not_settled(self, settled: Iterable[Settled], error: BaseException) -> None:
        """Fail all questions, because settlements could not be written."""
        for each in settled:
            each.ticket.sending = False
        self.questions.fail_all(error)

    def conclude(self, settled: Iterable[Settled], now: float) -> None:
        """Answer questions, or have them asked again, now that settlements are durable."""
        for each in settled:
            each.ticket.sending = False
            self._conclude(each.ticket, each.settlement, each.reply, now)

    def _conclude(self, ticket: Ticket, settled: Settlement, reply: Reply, now: float) -> None:
        questions = self.questions
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
            self._structured = False
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
