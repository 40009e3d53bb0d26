"""The gate's decisions as a pure state machine: no clock, no Ray, no input or output.

A question passes these steps. It is joined with the same question under way, or answered from the
ledger; queued under its client; admitted when rate, concurrency and budget allow it; reserved in
the ledger; sent; settled in the ledger; and only then answered. The caller (`Gate`) brings the
time, does the input and output between the steps, and reports the results.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from modicum.oracles.endpoint.budget import Accounts, Budget, most_prompt_tokens
from modicum.oracles.endpoint.messages import Batch, GateLeavingError, Request
from modicum.oracles.endpoint.open_questions import OpenQuestions, Ticket
from modicum.oracles.endpoint.pacing import Throttle
from modicum.oracles.endpoint.reply_accounting import EndpointHealth, ReplyAccounting
from modicum.oracles.endpoint.settings import Endpoint
from modicum.oracles.endpoint.templates import RESPONSE_FORMAT_BYTES
from modicum.oracles.ledger.records import Amount
from modicum.oracles.protocol import Reason

# A client that has not renewed its lease for this long is taken for dead, seconds.
CLIENT_LEASE = 15.0


class Scheduler:
    """Questions of all clients of one endpoint.

    Args:
        endpoint: Limits, prices, budget and attempts.
        spent: Spending of all runs so far.
        draws: Source of jitter.
        on_failure: Called with the reason whenever a question is given up.
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
        self._runs: dict[str, str] = {}  # The run that pays, by attached client.
        self._renewed: dict[str, float] = {}  # Time of the lease, by attached client.
        self._throttle = Throttle.of(
            endpoint.limits.requests_per_minute, endpoint.limits.tokens_per_minute
        )
        self._health = EndpointHealth(endpoint, draws)
        self._in_flight: dict[int, Ticket] = {}
        self.replies = ReplyAccounting(
            endpoint, self._in_flight, self.questions, self.accounts, self._throttle, self._health
        )
        self._reserving = 0
        self._idle_since: float | None = None

    # Clients.

    def attach(self, client: str, run: str, budget: Budget, now: float) -> None:
        """Take a client in, whose questions are paid for by a run with an open account.

        Raises:
            InputError: An attached client of the same run has another budget.
        """
        self.accounts.set_budget(run, budget, fixed=run in self._runs.values())
        self._runs[client], self._renewed[client] = run, now
        self.questions.queue.open(client)

    def renew(self, client: str, now: float) -> bool:
        """Renew a client's lease; False if the client has none any more."""
        if client in self._renewed:
            self._renewed[client] = now
        return client in self._renewed

    def detach(self, client: str, now: float) -> None:
        """Let a client go; unsent questions for which no other client waits are given up."""
        self._runs.pop(client, None)
        self._renewed.pop(client, None)
        self._idle_since = now
        self.questions.leave(client)

    def expire(self, now: float) -> None:
        """Detach the clients whose leases have run out."""
        for client, renewed in list(self._renewed.items()):
            if now - renewed > CLIENT_LEASE:
                self.detach(client, now)

    def idle_seconds(self, now: float) -> float:
        """Seconds since a call last found a client attached or a request under way."""
        if self._runs or self._in_flight or self._idle_since is None:
            self._idle_since = now
        return now - self._idle_since

    def ask(self, batch: Batch) -> tuple[list[Ticket], dict[str, Ticket]]:
        """Register a client's questions; see `OpenQuestions.ask`.

        Raises:
            GateLeavingError: The client is not attached.
        """
        if batch.client not in self._runs:
            raise GateLeavingError
        return self.questions.ask(batch, self._runs[batch.client])

    @property
    def clients(self) -> int:
        """Number of attached clients."""
        return len(self._runs)

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
        structured = self._health.structured
        messages = [message for message in (ticket.system, ticket.user) if message]
        prompt = most_prompt_tokens(*messages) + (RESPONSE_FORMAT_BYTES if structured else 0)
        dollars = self._endpoint.dollars(ticket.question.model, prompt, ticket.max_tokens)
        most = Amount(1, prompt + ticket.max_tokens, dollars)
        lack = self.accounts.lack(ticket.run, most)
        if lack is not None:
            if lack.final and not self._let_another_pay(ticket, most):
                message = f"too little is left of the {lack.budget}"
                self.questions.give_up(ticket, "budget", message)
            return False
        self.accounts.reserve(ticket.run, most)
        ticket.most, ticket.structured, ticket.sending = most, structured, True
        return True

    def _let_another_pay(self, ticket: Ticket, most: Amount) -> bool:
        for client in sorted(ticket.waiters):
            run = self._runs.get(client)
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
            self.accounts.settle(ticket.run, ticket.most, Amount())
            ticket.sending = False
        self.questions.fail_all(error)
