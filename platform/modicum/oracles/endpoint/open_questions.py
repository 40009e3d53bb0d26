"""Questions that are asked and not yet answered. Pure: no clock, no input or output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future

from modicum.errors import InputError
from modicum.oracles.endpoint.budget import likely_tokens
from modicum.oracles.endpoint.fair_queue import FairQueue, Ticket
from modicum.oracles.endpoint.messages import Answer, Batch, GateLeavingError
from modicum.oracles.ledger.records import Remembered
from modicum.oracles.protocol import Reason

# Answers without a verdict after which a question is given up.
_MOST_UNREADABLE = 2
_NO_VERDICT = "asked twice, and neither answer held a verdict"


class OpenQuestions:
    """Open questions by key, and the queue of those that wait to be sent.

    Args:
        on_failure: Called with the reason whenever a question is given up.
    """

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
