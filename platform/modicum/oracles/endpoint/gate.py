"""The gate: one actor for each endpoint and cluster, through which every question passes.

The gate alone knows the limits, the budgets and the ledger, so no process can exceed them. It does
the input and output around the decisions of `Scheduler`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine, Sequence
from typing import Any

import ray

from modicum.errors import InputError
from modicum.oracles.endpoint.budget import Budget
from modicum.oracles.endpoint.fair_queue import Ticket
from modicum.oracles.endpoint.keys import read_key
from modicum.oracles.endpoint.messages import Answer, Batch, GateLeavingError, Reply
from modicum.oracles.endpoint.metrics import GateMetrics
from modicum.oracles.endpoint.scheduler import Scheduler
from modicum.oracles.endpoint.settings import Endpoint
from modicum.oracles.endpoint.worker_pool import WorkerPool
from modicum.oracles.ledger.ledger import Ledger
from modicum.oracles.ledger.records import Reservation
from modicum.oracles.ledger.writer import LedgerWriter

_TICK = 0.5  # Seconds between two looks at leases and workers.


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
