"""Questions that wait to be sent: one queue for each client, clients in turn. Pure: no clock."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from modicum.oracles.endpoint.messages import Answer, Request
from modicum.oracles.ledger.records import Amount
from modicum.oracles.questions import Question


@dataclass(eq=False)
class Ticket:
    """A question on its way to its answer.

    Attributes:
        question: The question.
        system: The system message.
        user: The user message.
        max_tokens: Most tokens that an answer may have.
        run: The run that pays.
        client: The client in whose queue the ticket waits.
        likely: Estimated tokens of one request and its answer.
        answer: The answer to come.
        waiters: Clients that wait for the answer.
        attempts: Number of requests that brought no answer.
        unreadable: Number of answers without a verdict, those in the ledger included.
        spent: Amount spent on the question.
        prompt_tokens: Tokens read for the question.
        completion_tokens: Tokens written for the question.
        most: Amount reserved for the request under way.
        structured: Whether the request under way asks for JSON.
        sending: True from the reservation of a request until its settlement is durable.
    """

    question: Question
    system: str
    user: str
    max_tokens: int
    run: str
    client: str
    likely: int
    answer: Future[Answer] = field(default_factory=Future)
    waiters: set[str] = field(default_factory=set)
    attempts: int = 0
    unreadable: int = 0
    spent: Amount = field(default_factory=Amount)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    most: Amount = field(default_factory=Amount)
    structured: bool = False
    sending: bool = False

    def costing(self, **content: Any) -> Answer:
        """An answer that says what was spent on the question."""
        return Answer(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            dollars=self.spent.dollars,
            **content,
        )

    def request(self, number: int) -> Request:
        """The request under way, by its number in the ledger."""
        return Request(
            number=number,
            model=self.question.model,
            system=self.system,
            user=self.user,
            temperature=self.question.temperature,
            max_tokens=self.max_tokens,
            structured=self.structured,
        )


class FairQueue:
    """Tickets in one queue for each attached client, and tickets that wait for a time to come."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Ticket]] = {}
        self._later: list[tuple[float, int, Ticket]] = []
        self._sequence = itertools.count()

    def __contains__(self, client: object) -> bool:
        return client in self._queues

    def open(self, client: str) -> None:
        """Give a client a queue, unless it has one."""
        self._queues.setdefault(client, deque())

    def close(self, client: str) -> deque[Ticket]:
        """Remove a client's queue and return the tickets that were waiting in it."""
        return self._queues.pop(client, deque())

    def add(self, ticket: Ticket, *, in_front: bool = False) -> None:
        """Put a ticket into its client's queue.

        Args:
            ticket: A ticket whose client has a queue.
            in_front: Put it before the client's other tickets.
        """
        queue = self._queues[ticket.client]
        if in_front:
            queue.appendleft(ticket)
        else:
            queue.append(ticket)

    def add_later(self, ticket: Ticket, time: float) -> None:
        """Hold a ticket back until a time."""
        heapq.heappush(self._later, (time, next(self._sequence), ticket))

    def due(self, now: float) -> list[Ticket]:
        """Remove and return the held-back tickets whose time has come."""
        found = []
        while self._later and self._later[0][0] <= now:
            found.append(heapq.heappop(self._later)[2])
        return found

    @property
    def next_due(self) -> float | None:
        """Time of the next held-back ticket; None if there is none."""
        return self._later[0][0] if self._later else None

    def turns(self) -> deque[str]:
        """Clients with waiting tickets, in the order of their turns."""
        return deque(client for client, queue in self._queues.items() if queue)

    def first(self, client: str) -> Ticket | None:
        """A client's next ticket; None if none waits."""
        queue = self._queues[client]
        return queue[0] if queue else None

    def remove_first(self, client: str) -> None:
        """Remove a client's next ticket."""
        self._queues[client].popleft()

    def end_turn(self, client: str) -> None:
        """Let all other clients come before this one."""
        if client in self._queues:
            self._queues[client] = self._queues.pop(client)
