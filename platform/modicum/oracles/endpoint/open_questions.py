"""Questions that are asked and not yet answered. Pure: no clock, no input or output."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from modicum.errors import InputError
from modicum.oracles.endpoint.budget import likely_tokens
from modicum.oracles.endpoint.messages import Answer, Batch, GateLeavingError, Request
from modicum.oracles.ledger.records import Amount, Remembered
from modicum.oracles.protocol import Reason
from modicum.oracles.questions import Question

# Answers without a verdict after which a question is given up.
_MOST_UNREADABLE = 2
_NO_VERDICT = "asked twice, and neither answer held a verdict"


@dataclass(eq=False)
class Ticket:
    """A question on its way to its answer."""

    question: Question
    system: str
    user: str
    max_tokens: int
    run: str
    client: str  # The client in whose queue the ticket waits.
    likely: int  # Estimated tokens of one request and its answer.
    answer: Future[Answer] = field(default_factory=Future)  # The answer to come.
    waiters: set[str] = field(default_factory=set)  # Clients that wait for the answer.
    attempts: int = 0  # Number of requests that brought no answer.
    unreadable: int = 0  # Number of answers without a verdict, those in the ledger included.
    spent: Amount = field(default_factory=Amount)  # Amount spent on the question.
    prompt_tokens: int = 0  # Tokens read for the question.
    completion_tokens: int = 0  # Tokens written for the question.
    most: Amount = field(default_factory=Amount)  # Amount reserved for the request under way.
    structured: bool = False  # Whether the request under way asks for JSON.
    sending: bool = False  # True from the reservation of a request until its settlement is durable.

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
        """Put a ticket into its client's queue."""
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


class OpenQuestions:
    """Open questions by key, and the queue of those that wait; `on_failure` hears why one fails."""

    def __init__(self, on_failure: Callable[[Reason], None]) -> None:
        self.queue = FairQueue()
        self._on_failure = on_failure
        self._tickets: dict[str, Ticket] = {}
        self._stopped: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    def ask(self, batch: Batch, run: str) -> tuple[list[Ticket], dict[str, Ticket]]:
        """Register questions of an attached client.

        Returns:
            A ticket for each question, in order; and by their keys the new ones among them, which
            wait for `remember`.
        """
        new: dict[str, Ticket] = {}
        tickets = []
        for question in batch.questions:
            self._stopped.pop(question.model, None)
            ticket = self._tickets.get(question.key)
            if ticket is None:
                system, user = batch.template.render(question.prompt, *question.shown)
                ticket = Ticket(
                    question=question,
                    system=system,
                    user=user,
                    max_tokens=batch.max_tokens,
                    run=run,
                    client=batch.client,
                    likely=likely_tokens(system + user) + batch.max_tokens // 2,
                )
                self._tickets[question.key] = new[question.key] = ticket
            ticket.waiters.add(batch.client)
            if ticket.client not in self.queue:  # The client that asked first has left.
                ticket.client = batch.client
            tickets.append(ticket)
        return tickets, new

    def remember(self, new: Mapping[str, Ticket], known: Mapping[str, Remembered]) -> int:
        """Answer new questions from the ledger, and queue the others.

        Args:
            new: Tickets by key, as `ask` returned them.
            known: The ledger's knowledge by key.

        Returns:
            The number of questions that the ledger answered.
        """
        answered = 0
        for key, ticket in new.items():
            remembered = known.get(key, Remembered())
            ticket.unreadable = remembered.unreadable
            if remembered.verdict is not None:
                verdict, rationale = remembered.verdict, remembered.rationale
                self.resolve(ticket, Answer(letter=verdict, rationale=rationale, cached=True))
            elif remembered.unreadable >= _MOST_UNREADABLE:
                self.resolve(ticket, Answer(failure="unreadable", message=_NO_VERDICT, cached=True))
            else:
                self.enqueue(ticket)
                continue
            answered += 1
        return answered

    def leave(self, client: str) -> None:
        """Let a client go; unsent questions for which no other client waits are given up."""
        for ticket in self._tickets.values():
            ticket.waiters.discard(client)
            if ticket.client == client and ticket.waiters:
                ticket.client = next(iter(ticket.waiters))
        for ticket in self.queue.close(client):
            self.enqueue(ticket)

    def enqueue(self, ticket: Ticket, *, in_front: bool = False) -> None:
        """Queue a ticket under its client."""
        if ticket.client in self.queue:
            self.queue.add(ticket, in_front=in_front)
        else:  # A client that was let go by mistake asks again.
            self.fail(ticket, GateLeavingError())

    def ask_again(self, ticket: Ticket, at: float | None = None) -> None:
        """Queue a question for another request, now or at a time."""
        if not ticket.waiters:
            self.fail(ticket, GateLeavingError())
        elif ticket.question.model in self._stopped:
            self.fail(ticket, InputError(self._stopped[ticket.question.model]))
        elif at is not None:
            self.queue.add_later(ticket, at)
        else:
            self.enqueue(ticket, in_front=True)

    def unreadable(self, ticket: Ticket) -> None:
        """Have a question asked again whose answer held no verdict, unless that was the second."""
        if ticket.unreadable >= _MOST_UNREADABLE:
            self.give_up(ticket, "unreadable", _NO_VERDICT)
        else:
            self.ask_again(ticket)

    def resolve(self, ticket: Ticket, answer: Answer) -> None:
        """Answer a question."""
        self._forget(ticket)
        if not ticket.answer.done():
            ticket.answer.set_result(answer)

    def give_up(self, ticket: Ticket, reason: Reason, message: str) -> None:
        """Answer a question with a failure."""
        self._on_failure(reason)
        self.resolve(ticket, ticket.costing(failure=reason, message=message))

    def fail(self, ticket: Ticket, error: BaseException) -> None:
        """Raise an error for everybody who waits for a question."""
        self._forget(ticket)
        if not ticket.answer.done():
            ticket.answer.set_exception(error)

    def _forget(self, ticket: Ticket) -> None:
        if self._tickets.get(ticket.question.key) is ticket:
            del self._tickets[ticket.question.key]

    def stop(self, model: str, message: str) -> None:
        """Fail the unsent questions to a model that cannot be asked."""
        self._stopped[model] = message
        for ticket in list(self._tickets.values()):
            if ticket.question.model == model and not ticket.sending:
                self.fail(ticket, InputError(message))

    def fail_all(self, error: BaseException) -> None:
        """Fail all questions; the answers of those under way go to clients that ask again."""
        for ticket in list(self._tickets.values()):
            self.fail(ticket, error)
            if ticket.sending:
                ticket.answer = Future()
                ticket.waiters.clear()
                self._tickets[ticket.question.key] = ticket
