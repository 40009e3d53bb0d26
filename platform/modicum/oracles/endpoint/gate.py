"""The gate: one actor for each endpoint and cluster, through which every question passes.

The gate alone knows the limits, the budgets and the ledger, so no process can exceed them. It does
the input and output around the decisions of `Scheduler`, and exports metrics for Prometheus.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter as Tally
from collections.abc import Coroutine, Sequence
from typing import Any

import ray
from ray.util.metrics import Counter, Gauge, Histogram

from modicum.errors import InputError
from modicum.oracles.endpoint.budget import Budget
from modicum.oracles.endpoint.messages import Answer, Batch, GateLeavingError, Reply
from modicum.oracles.endpoint.open_questions import Ticket
from modicum.oracles.endpoint.scheduler import Scheduler
from modicum.oracles.endpoint.settings import Endpoint
from modicum.oracles.endpoint.workers import WorkerPool, read_key
from modicum.oracles.ledger.ledger import Ledger, LedgerWriter
from modicum.oracles.ledger.records import Reservation, Settlement

_TICK = 0.5  # Seconds between two looks at leases and workers.


class GateMetrics:
    """Counters and gauges of one gate, tagged with its name."""

    def __init__(self, gate: str) -> None:
        tags = {"gate": gate}
        self._requests = Counter(
            "modicum_oracle_requests", "Requests by their state.", ("gate", "state")
        )
        self._tokens = Counter(
            "modicum_oracle_tokens", "Tokens read and written.", ("gate", "kind")
        )
        self._dollars = Counter("modicum_oracle_dollars", "Dollars spent.", ("gate",))
        self._questions = Counter("modicum_oracle_questions", "Questions asked.", ("gate",))
        self._remembered = Counter(
            "modicum_oracle_ledger_answers", "Questions answered from the ledger.", ("gate",)
        )
        self._failures = Counter(
            "modicum_oracle_failures", "Questions without a judgement.", ("gate", "reason")
        )
        self._in_flight = Gauge("modicum_oracle_in_flight", "Requests under way.", ("gate",))
        self._waiting = Gauge("modicum_oracle_waiting", "Questions not yet sent.", ("gate",))
        self._latency = Histogram(
            "modicum_oracle_latency_seconds",
            "Time from sending a request to its answer.",
            boundaries=[0.1, 0.3, 1, 3, 10, 30, 100],
            tag_keys=("gate",),
        )
        metrics = (
            *(self._requests, self._tokens, self._dollars, self._questions, self._remembered),
            *(self._failures, self._in_flight, self._waiting, self._latency),
        )
        for metric in metrics:
            metric.set_default_tags(tags)

    def asked(self, count: int) -> None:
        """Count questions that have come in."""
        _add(self._questions, count)

    def from_ledger(self, count: int) -> None:
        """Count questions that the ledger answered."""
        _add(self._remembered, count)

    def failed(self, reason: str) -> None:
        """Count a question that was given up."""
        _add(self._failures, 1, reason=reason)

    def settled(self, settlements: Sequence[Settlement]) -> None:
        """Count settled requests, their tokens and their cost."""
        for state, count in Tally(s.state for s in settlements).items():
            _add(self._requests, count, state=state)
        _add(self._tokens, sum(s.prompt_tokens for s in settlements), kind="read")
        _add(self._tokens, sum(s.completion_tokens for s in settlements), kind="written")
        _add(self._dollars, sum(s.dollars for s in settlements))
        for settlement in settlements:
            if settlement.state in {"answered", "unreadable"} and settlement.latency > 0:
                self._latency.observe(settlement.latency)

    def level(self, in_flight: int, waiting: int) -> None:
        """Set the numbers of requests under way and of questions that wait."""
        self._in_flight.set(in_flight)
        self._waiting.set(waiting)


def _add(counter: object, amount: float, **tags: str) -> None:
    """Increment a counter; Ray's counters refuse zero."""
    if amount > 0:
        counter.inc(amount, tags=tags or None)  # type: ignore[attr-defined]


class Gate:
    """The actor. The first client starts it; it ends itself some time after the last client."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._endpoint: Endpoint | None = None
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._attaching = asyncio.Lock()
        self._leaving = False
        self._crash: BaseException | None = None

    # Calls from clients.

    async def attach(self, client: str, endpoint: Endpoint, run: str, budget: Budget) -> None:
        """Take a client in; the first client brings the endpoint's settings.

        Raises:
            InputError: There is no key on this machine, the ledger cannot be used, the gate runs
                with other settings, or another program of the run has another budget.
            GateLeavingError: The gate ends; look for a gate again.
        """
        async with self._attaching:
            if self._leaving:
                raise GateLeavingError
            if self._endpoint is None:
                try:
                    await self._open(endpoint)
                except BaseException:
                    self._leaving = True
                    asyncio.get_running_loop().call_later(_TICK, _end_process)
                    raise
            self._refuse_other_settings(endpoint)
            accounts = self._scheduler.accounts
            if run not in accounts:
                accounts.open(run, await self._writer.run(lambda ledger: ledger.spent(run)))
            self._scheduler.attach(client, run, budget, _now())

    async def _open(self, endpoint: Endpoint) -> None:
        read_key(endpoint)
        self._writer = LedgerWriter(endpoint.ledger_file)
        try:
            spent = await self._writer.run(Ledger.spent)
            self._metrics = GateMetrics(self._name)
            self._scheduler = Scheduler(
                endpoint, spent, draws=random.Random(), on_failure=self._metrics.failed
            )
            self._workers = WorkerPool(endpoint, self._lose)
            await self._workers.start()
        except BaseException:
            self._writer.close()
            raise
        self._endpoint = endpoint
        self._keep(self._pump())
        self._keep(self._watch(endpoint.lease))

    def _refuse_other_settings(self, endpoint: Endpoint) -> None:
        assert self._endpoint is not None
        mine, theirs = self._endpoint.model_dump(), endpoint.model_dump()
        for name, value in mine.items():
            if theirs[name] != value:
                raise InputError(
                    f"endpoint {self._name}: its gate on this cluster runs with {name} {value!r}, "
                    f"not {theirs[name]!r}; use the same, or wait until its last client has left"
                )

    async def renew(self, client: str) -> bool:
        """Renew a client's lease; False if the client has none any more."""
        return self._scheduler.renew(client, _now())

    async def detach(self, client: str) -> None:
        """Let a client go; unsent questions for which no other client waits are given up."""
        self._scheduler.detach(client, _now())
        self._wake.set()

    async def judge(self, batch: Batch) -> list[Answer]:
        """Answer questions, in order, once all answers are durable.

        Raises:
            InputError: Every request would fail: a bad key, no such model, no credit, no endpoint.
            GateLeavingError: The client's lease has run out.
        """
        if self._crash is not None:
            raise self._crash
        # Registered before the ledger is read: an answer that is settled meanwhile is not missed.
        tickets, new = self._scheduler.ask(batch)
        try:
            known = await self._writer.run(lambda ledger: ledger.recall(new))
        except Exception as error:
            for ticket in new.values():
                self._scheduler.questions.fail(ticket, self._ledger_error("read", error))
        else:
            remembered = self._scheduler.questions.remember(new, known)
            self._metrics.asked(len(batch.questions))
            self._metrics.from_ledger(remembered)
        self._wake.set()
        answers = [asyncio.wrap_future(ticket.answer) for ticket in tickets]
        return list(await asyncio.gather(*map(asyncio.shield, answers)))

    async def status(self) -> dict[str, Any]:
        """Numbers of clients, questions and requests, spending, and the workers' nodes."""
        scheduler = self._scheduler
        return {
            "name": self._name,
            "clients": scheduler.clients,
            "waiting": scheduler.waiting,
            "in_flight": scheduler.in_flight,
            "spent": scheduler.accounts.total.spent,
            "reserved": scheduler.accounts.total.reserved,
            "orphans": self._writer.orphans,
            "workers": self._workers.nodes,
        }

    # Requests and replies.

    async def _pump(self) -> None:
        """Send the requests that may be sent, then sleep until more may be."""
        while True:
            self._wake.clear()
            tickets, wait = self._scheduler.admit(_now()) if self._workers.ready else ([], _TICK)
            if tickets:
                await self._send(tickets)
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait)

    async def _send(self, tickets: list[Ticket]) -> None:
        reservations = [Reservation(each.question, each.run, each.most) for each in tickets]
        try:
            numbers = await self._writer.reserve(reservations)
        except Exception as error:
            self._scheduler.not_reserved(tickets, self._ledger_error("written", error))
        else:
            self._workers.send(self._scheduler.reserved(tickets, numbers))

    async def settle(self, replies: Sequence[Reply]) -> None:
        """Account for replies, write their settlements, and only then answer. Called by workers."""
        try:
            settled = self._scheduler.replies.account(replies, _now())
            for each in settled:
                self._workers.settled(each.reply.number)
            self._wake.set()
            settlements = [each.settlement for each in settled]
            try:
                await self._writer.settle(settlements)
            except Exception as error:
                self._scheduler.replies.not_settled(settled, self._ledger_error("written", error))
                return
            self._metrics.settled(settlements)
            self._scheduler.replies.conclude(settled, _now())
            self._wake.set()
        except Exception as error:
            self._break_down(error)

    async def _lose(self, numbers: list[int]) -> None:
        """Settle the requests of a worker that ended as lost: they may have been charged."""
        message = "the process that sent it ended"
        await self.settle([Reply(number=n, outcome="lost", message=message) for n in numbers])

    def _ledger_error(self, done: str, error: Exception) -> InputError:
        assert self._endpoint is not None
        return InputError(f"ledger: {self._endpoint.ledger_file} cannot be {done} ({error})")

    # Life and end of the actor.

    async def _watch(self, lease: float) -> None:
        """Detach clients whose leases ran out; end after no client was attached for some time."""
        while True:
            await asyncio.sleep(_TICK)
            now = _now()
            self._scheduler.expire(now)
            self._wake.set()
            self._metrics.level(self._scheduler.in_flight, self._scheduler.waiting)
            if self._scheduler.idle_seconds(now) > lease and not self._attaching.locked():
                self._leaving = True
                self._writer.close()
                _end_process()
                return

    def _keep(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a task for the gate's whole life; if it fails, all waiting clients get its error."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self._break_down(error)

        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(ended)

    def _break_down(self, error: BaseException) -> None:
        """Raise a programming error for all clients, now and from now on."""
        self._crash = error
        self._scheduler.questions.fail_all(error)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _end_process() -> None:
    """End the gate's process, and so its workers.

    An orderly exit would wait for the calls of `serve`, which never return.
    """
    ray.kill(ray.get_runtime_context().current_actor)
