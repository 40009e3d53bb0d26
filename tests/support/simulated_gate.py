"""A gate in simulated time: its scheduler, between a ledger in memory and an endpoint as told."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from modicum.oracles.endpoint.budget import Budget
from modicum.oracles.endpoint.messages import Answer, Batch, Reply, Request
from modicum.oracles.endpoint.open_questions import Ticket
from modicum.oracles.endpoint.reply_accounting import Settled
from modicum.oracles.endpoint.scheduler import Scheduler
from modicum.oracles.endpoint.settings import Endpoint
from modicum.oracles.endpoint.templates import Template
from modicum.oracles.ledger.records import Amount, Remembered, Reservation, Settlement
from modicum.oracles.questions import Question

TEMPLATE = Template("plain", "", "{{prompt}}|{{completion_a}}|{{completion_b}}")
VERDICT = {"text": "Preferred: A", "prompt_tokens": 10, "completion_tokens": 5}


def questions(count: int, *, start: int = 0, model: str = "judge") -> list[Question]:
    """Different questions of the same length."""
    return [
        Question(f"post {number:04}", "one", "two", "given", model, 0.0, TEMPLATE.digest)
        for number in range(start, start + count)
    ]


def answered(**changes: Any) -> dict[str, Any]:
    """Fields of a reply with a verdict."""
    return {"outcome": "answered", **VERDICT, **changes}


class SimulatedGate:
    """Takes the place of `Gate`; time passes only while it waits.

    Args:
        respond: Fields of the reply to a request, given the times its question was asked before.
        delay: Seconds before a reply arrives.
        spent: Spending so far of each run.
        **settings: Settings of the `Endpoint`.

    Attributes:
        now: The time.
        sent: Time and request, in the order of sending.
        ledger: Reservation and settlement (None while under way) by number of the request.
        gave_up: Number of questions given up, by reason.
    """

    def __init__(
        self,
        respond: Callable[[Request, int], dict[str, Any]] = lambda request, before: answered(),
        *,
        delay: Callable[[], float] = lambda: 1.0,
        spent: dict[str, Amount] | None = None,
        **settings: Any,
    ) -> None:
        self.now = 1000.0
        self.sent: list[tuple[float, Request]] = []
        self.ledger: dict[int, tuple[Reservation, Settlement | None]] = {}
        self.gave_up: Counter[str] = Counter()
        self._respond, self._delay = respond, delay
        self._spent = spent or {}
        self._asked: Counter[str] = Counter()
        self._arriving: list[tuple[float, int, Reply]] = []
        endpoint = Endpoint(base_url="http://endpoint/v1", **settings)
        self.scheduler = Scheduler(
            endpoint,
            sum(self._spent.values(), Amount()),
            draws=random.Random(0),
            on_failure=lambda reason: self.gave_up.update([reason]),
        )

    def attach(self, client: str, run: str = "run", **budget: Any) -> None:
        """Take a client in."""
        if run not in self.scheduler.accounts:
            self.scheduler.accounts.open(run, self._spent.get(run, Amount()))
        self.scheduler.attach(client, run, Budget(**budget), self.now)

    def ask(self, client: str, asked: Iterable[Question], max_tokens: int = 50) -> list[Ticket]:
        """Register an attached client's questions, and look them up in the ledger."""
        tickets, new = self.scheduler.ask(Batch(client, TEMPLATE, max_tokens, tuple(asked)))
        self.scheduler.questions.remember(new, {key: self._recall(key) for key in new})
        return tickets

    def _recall(self, key: str) -> Remembered:
        rows = [s for r, s in self.ledger.values() if r.question.key == key and s is not None]
        verdict = next((s.verdict for s in rows if s.state == "answered"), None)
        return Remembered(verdict, None, sum(s.state == "unreadable" for s in rows))

    def run(self, seconds: float = math.inf) -> None:
        """Let time pass until nothing is left to do, or for some seconds."""
        until = self.now + seconds
        while True:
            tickets, wait = self.scheduler.admit(self.now)
            if tickets:
                self.send(tickets)
                continue
            wakes = [time for time, _, _ in self._arriving[:1]]
            if wait is not None:
                wakes.append(self.now + wait)
            if not wakes or min(wakes) > until:
                self.now = self.now if until == math.inf else until
                return
            self.now = max(self.now, min(wakes))
            self.deliver(self.arrived())

    def send(self, tickets: list[Ticket]) -> None:
        """Reserve requests in the ledger, and send them."""
        numbers = [number for number, _ in zip(itertools.count(len(self.ledger) + 1), tickets)]
        for number, ticket in zip(numbers, tickets, strict=True):
            self.ledger[number] = (Reservation(ticket.question, ticket.run, ticket.most), None)
        for request, ticket in zip(self.scheduler.reserved(tickets, numbers), tickets, strict=True):
            self.sent.append((self.now, request))
            fields = self._respond(request, self._asked[ticket.question.key])
            self._asked[ticket.question.key] += 1
            reply = Reply(number=request.number, **fields)
            heapq.heappush(self._arriving, (self.now + self._delay(), request.number, reply))

    def arrived(self) -> list[Reply]:
        """Remove and return the replies that have arrived."""
        replies = []
        while self._arriving and self._arriving[0][0] <= self.now:
            replies.append(heapq.heappop(self._arriving)[2])
        return replies

    def deliver(self, replies: Iterable[Reply]) -> list[Settled]:
        """Account for replies, settle them in the ledger, and conclude."""
        settled = self.scheduler.replies.account(replies, self.now)
        for each in settled:
            reservation, before = self.ledger[each.reply.number]
            assert before is None
            self.ledger[each.reply.number] = (reservation, each.settlement)
        self.scheduler.replies.conclude(settled, self.now)
        return settled

    @property
    def times(self) -> list[float]:
        """Times at which requests were sent."""
        return [time for time, _ in self.sent]

    def states(self) -> Counter[str]:
        """Number of requests by state; `reserved` while under way."""
        return Counter("reserved" if s is None else s.state for _, s in self.ledger.values())

    def spent(self, run: str | None = None) -> Amount:
        """Spending of a run, or of all runs, as the ledger counts it."""
        total = Amount()
        for reservation, settled in self.ledger.values():
            if run is not None and reservation.run != run:
                continue
            if settled is None or settled.state == "lost":
                total += reservation.most
            elif settled.state != "refused":
                tokens = settled.prompt_tokens + settled.completion_tokens
                total += Amount(1, tokens, settled.dollars)
        return total


def results(tickets: Iterable[Ticket]) -> list[str]:
    """The letter or the reason of failure of each answer; the error's name where one is raised."""

    def result(ticket: Ticket) -> str:
        if not ticket.answer.done():
            return "open"
        error = ticket.answer.exception()
        if error is not None:
            return type(error).__name__
        answer: Answer = ticket.answer.result()
        return answer.letter or str(answer.failure)

    return [result(ticket) for ticket in tickets]
