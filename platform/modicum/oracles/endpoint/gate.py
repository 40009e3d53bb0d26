"""The gate: one actor for each endpoint and cluster, through which every question goes.

It alone knows the limits, the budget and the ledger, so nobody can pass them by running in another
process. A question's way: joined with the same question under way, or answered from the ledger;
queued under its client; admitted when the rate, the concurrency and the budget allow; reserved in
the ledger; sent by a worker; settled in the ledger; and only then returned.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import random
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from modicum.errors import InputError
from modicum.oracles.endpoint.budget import (
    Account,
    Amount,
    Budget,
    likely_tokens,
    most_prompt_tokens,
)
from modicum.oracles.endpoint.ledger import Ledger, Remembered, Reservation, Settlement
from modicum.oracles.endpoint.ledger_writer import LedgerWriter
from modicum.oracles.endpoint.messages import Answer, Batch, GateLeavingError, Reply, Request
from modicum.oracles.endpoint.metrics import GateMetrics
from modicum.oracles.endpoint.pacing import Throttle
from modicum.oracles.endpoint.request_worker import SCHEMA_BYTES
from modicum.oracles.endpoint.settings import Endpoint, read_key
from modicum.oracles.endpoint.worker_pool import Workers, leave
from modicum.oracles.protocol import Reason
from modicum.oracles.questions import Question
from modicum.oracles.verdicts import read_verdict

# A client is taken for gone when it has not renewed its lease for so long, seconds.
CLIENT_LEASE = 15.0
_TICK = 0.5
# Answers without a verdict before there is no asking again.
_UNREADABLE = 2
# Attempts at reaching an endpoint that never answered before everybody is told.
_UNREACHABLE = 3


@dataclass(eq=False)
class _Item:
    """A question on its way."""

    question: Question
    system: str
    user: str
    max_tokens: int
    run: str
    client: str
    answer: asyncio.Future[Answer]
    waiters: set[str] = field(default_factory=set)
    likely: int = 0
    attempts: int = 0
    unreadable: int = 0
    spent: Amount = field(default_factory=Amount)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    most: Amount = field(default_factory=Amount)
    structured: bool = False
    sending: bool = False
    worker: int = -1

    def costing(self, **content: Any) -> Answer:
        """An answer with what was spent on the question."""
        return Answer(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            dollars=self.spent.dollars,
            **content,
        )


class Gate:
    """The actor. The first client starts it; it ends itself a while after the last one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._endpoint: Endpoint | None = None
        self._clients: dict[str, float] = {}
        self._runs: dict[str, str] = {}
        self._queues: dict[str, deque[_Item]] = {}
        self._later: list[tuple[float, int, _Item]] = []
        self._sequence = itertools.count()
        self._pending: dict[str, _Item] = {}
        self._in_flight: dict[int, _Item] = {}
        self._starting = 0
        self._accounts: dict[str, Account] = {}
        self._stopped: dict[str, str] = {}
        self._strikes = 0
        self._unreachable = 0
        self._reached = False
        self._random = random.Random()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._attaching = asyncio.Lock()
        self._leaving = False
        self._crash: BaseException | None = None
        self._idle_since = 0.0

    # What clients call.

    async def attach(self, client: str, endpoint: Endpoint, run: str, budget: Budget) -> None:
        """Take a client in; the first one brings the endpoint's settings.

        Raises:
            InputError: There is no key here, the ledger cannot be used, the gate runs with other
                settings, or the run's other programs with another budget.
            GateLeavingError: Ask again for a gate.
        """
        async with self._attaching:
            if self._leaving:
                raise GateLeavingError
            if self._endpoint is None:
                try:
                    await self._open(endpoint)
                except BaseException:
                    self._leaving = True
                    asyncio.get_running_loop().call_later(_TICK, leave)
                    raise
            self._refuse_other_settings(endpoint)
            account = self._accounts.get(run)
            if account is None:
                spent = await self._writer.run(lambda ledger: ledger.spent(run))
                # Another client of the run may have come meanwhile.
                account = self._accounts.setdefault(run, Account(budget, spent))
            if account.budget != budget:
                if run in self._runs.values():
                    raise InputError(
                        f"budget: another program of run {run!r} has {_caps(account.budget)}, "
                        f"this one {_caps(budget)}; give both the same, or another run's name"
                    )
                account.budget = budget
            self._clients[client], self._runs[client] = self._now(), run
            self._queues.setdefault(client, deque())

    async def _open(self, endpoint: Endpoint) -> None:
        read_key(endpoint)
        self._writer = LedgerWriter(endpoint.ledger_file)
        try:
            total = await self._writer.run(Ledger.spent)
            self._total = Account(endpoint.budget, total)
            self._throttle = Throttle.of(
                endpoint.limits.requests_per_minute, endpoint.limits.tokens_per_minute
            )
            self._structured = endpoint.structured_output
            self._metrics = GateMetrics(self._name)
            self._workers = Workers(endpoint, self._lose)
            await self._workers.start()
        except BaseException:
            self._writer.close()
            raise
        self._endpoint = endpoint
        self._keep(self._pump())
        self._keep(self._watch())

    def _refuse_other_settings(self, endpoint: Endpoint) -> None:
        assert self._endpoint is not None
        mine, theirs = self._endpoint.model_dump(), endpoint.model_dump()
        for name, value in mine.items():
            if theirs[name] != value:
                raise InputError(
                    f"endpoint {self._name}: its gate on this cluster runs with {name} {value!r}, "
                    f"not {theirs[name]!r}; use the same, or wait until its last client has gone"
                )

    async def renew(self, client: str) -> bool:
        """Keep a client's lease; whether it still had one."""
        if client in self._clients:
            self._clients[client] = self._now()
        return client in self._clients

    async def detach(self, client: str) -> None:
        """Let a client go; what only it waits for and was not sent is not sent."""
        self._clients.pop(client, None)
        self._runs.pop(client, None)
        self._idle_since = self._now()
        for item in self._pending.values():
            item.waiters.discard(client)
            if item.client == client and item.waiters:
                item.client = next(iter(item.waiters))
        for item in self._queues.pop(client, deque()):
            if item.client in self._queues:
                self._queues[item.client].append(item)
            else:
                self._abandon(item)
        self._wake.set()

    def _abandon(self, item: _Item) -> None:
        """Its clients are gone, or let go by mistake: then they ask again."""
        self._fail(item, GateLeavingError())

    def _forget(self, item: _Item) -> None:
        if self._pending.get(item.question.key) is item:
            del self._pending[item.question.key]

    async def judge(self, batch: Batch) -> list[Answer]:
        """An answer for each question, in order, once all are durable.

        Raises:
            InputError: Asking on is useless: a bad key, no such model, no credit, no endpoint.
            GateLeavingError: The client's lease ran out.
        """
        if self._crash is not None:
            raise self._crash
        if batch.client not in self._clients:
            raise GateLeavingError
        for question in batch.questions:
            self._stopped.pop(question.model, None)
        # Registered before the ledger is looked at: an answer that is settled meanwhile is found.
        new: dict[str, _Item] = {}
        items: list[_Item] = []
        for question in batch.questions:
            item = self._pending.get(question.key)
            if item is None:
                item = self._item(question, batch)
                self._pending[question.key] = new[question.key] = item
            item.waiters.add(batch.client)
            if item.client not in self._queues:  # Whoever asked first has gone meanwhile.
                item.client = batch.client
            items.append(item)
        try:
            known = await self._writer.run(lambda ledger: ledger.recall(new))
        except Exception as error:
            broken = self._cannot("read", error)
            for item in new.values():
                self._fail(item, broken)
            raise broken from error
        self._metrics.asked(len(batch.questions))
        for key, item in new.items():
            remembered = known.get(key)
            if remembered is not None and (answer := _from_ledger(remembered)) is not None:
                self._resolve(item, answer)
                self._metrics.from_ledger(1)
                continue
            item.unreadable = 0 if remembered is None else remembered.unreadable
            if item.client in self._queues:
                self._queues[item.client].append(item)
            else:
                self._abandon(item)
        self._wake.set()
        return list(await asyncio.gather(*(asyncio.shield(item.answer) for item in items)))

    def _item(self, question: Question, batch: Batch) -> _Item:
        system, user = batch.template.render(question.prompt, *question.shown)
        return _Item(
            question=question,
            system=system,
            user=user,
            max_tokens=batch.max_tokens,
            run=self._runs[batch.client],
            client=batch.client,
            answer=asyncio.get_running_loop().create_future(),
            likely=likely_tokens(system + user) + batch.max_tokens // 2,
        )

    async def status(self) -> dict[str, Any]:
        """What goes on: clients, questions waiting and under way, spending, workers."""
        return {
            "name": self._name,
            "clients": len(self._clients),
            "waiting": len(self._pending) - len(self._in_flight),
            "in_flight": len(self._in_flight),
            "spent": self._total.spent,
            "reserved": self._total.reserved,
            "orphans": self._writer.orphans,
            "workers": self._workers.places(),
        }

    # Sending.

    async def _pump(self) -> None:
        """Send whatever may be sent, then sleep until something may."""
        while True:
            self._wake.clear()
            self._bring_back()
            items, wait = self._admit()
            if items:
                await self._dispatch(items)
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait)

    def _bring_back(self) -> None:
        """Questions whose wait is over stand first in their client's queue again."""
        while self._later and self._later[0][0] <= self._now():
            item = heapq.heappop(self._later)[2]
            self._return_to_queue(item)

    def _return_to_queue(self, item: _Item) -> None:
        if item.client in self._queues:
            self._queues[item.client].appendleft(item)
        else:
            self._abandon(item)

    def _admit(self) -> tuple[list[_Item], float | None]:
        """Questions to send now, clients taking turns; or how long to sleep if there are none."""
        assert self._endpoint is not None
        admitted: list[_Item] = []
        free = self._endpoint.limits.concurrent_requests - len(self._in_flight) - self._starting
        now = self._now()
        wait = self._later[0][0] - now if self._later else None
        if not self._workers.ready:
            free = 0
            wait = _TICK if wait is None else min(wait, _TICK)
        turns = deque(client for client, queue in self._queues.items() if queue)
        while turns and len(admitted) < free:
            pause = self._throttle.wait(now)
            if pause > 0:
                wait = pause if wait is None else min(pause, wait)
                break
            client = turns.popleft()
            queue = self._queues[client]
            item = queue[0]
            if item.answer.done():
                queue.popleft()
            elif self._reserve(item):
                queue.popleft()
                self._throttle.admit(item.likely, now)
                admitted.append(item)
            elif item.answer.done():
                queue.popleft()
            elif item.client != client:
                queue.popleft()
                self._queues[item.client].append(item)
                self._wake.set()
            else:
                continue  # Until what is under way has been settled.
            if queue:
                turns.append(client)
        # The next call starts with another client.
        if admitted and admitted[-1].client in self._queues:
            self._queues[admitted[-1].client] = self._queues.pop(admitted[-1].client)
        return admitted, wait

    def _reserve(self, item: _Item) -> bool:
        """Set aside the most that a question's next request can cost.

        Where that does not fit and nothing is under way that might leave something over, another
        run pays that waits for the same question; if there is none, the question fails.
        """
        assert self._endpoint is not None
        messages = [message for message in (item.system, item.user) if message]
        prompt = most_prompt_tokens(*messages) + (SCHEMA_BYTES if self._structured else 0)
        dollars = self._endpoint.dollars(item.question.model, prompt, item.max_tokens)
        most = Amount(1, prompt + item.max_tokens, dollars)
        accounts = (self._accounts[item.run], self._total)
        for account, whose in zip(accounts, ("run", "endpoint"), strict=True):
            cap = account.lacks(most)
            if cap is not None:
                if account.reserved.calls == 0 and not self._let_another_pay(item, most):
                    left = f"too little is left of the {whose}'s budget of {cap}"
                    self._give_up(item, "budget", left)
                return False
        for account in accounts:
            account.reserve(most)
        item.most, item.structured, item.sending = most, self._structured, True
        return True

    def _let_another_pay(self, item: _Item, most: Amount) -> bool:
        if self._total.lacks(most) is not None:
            return False
        for client in sorted(item.waiters):
            run = self._runs.get(client, item.run)
            if run != item.run and self._accounts[run].lacks(most) is None:
                item.client, item.run = client, run
                return True
        return False

    async def _dispatch(self, items: list[_Item]) -> None:
        self._starting += len(items)
        reservations = [Reservation(item.question, item.run, item.most) for item in items]
        try:
            numbers = await self._writer.reserve(reservations)
        except Exception as error:
            for item in items:
                self._settle_accounts(item, Amount())
                item.sending = False
            self._fail_everything(self._cannot("written", error))
            return
        finally:
            self._starting -= len(items)
        requests: dict[int, list[Request]] = {}
        for number, item in zip(numbers, items, strict=True):
            item.worker = self._workers.take()
            self._in_flight[number] = item
            requests.setdefault(item.worker, []).append(
                Request(
                    number=number,
                    model=item.question.model,
                    system=item.system,
                    user=item.user,
                    temperature=item.question.temperature,
                    max_tokens=item.max_tokens,
                    structured=item.structured,
                )
            )
        for worker, batch in requests.items():
            self._workers.send(worker, batch)

    # What workers call, and what becomes of their replies.

    async def settle(self, replies: Sequence[Reply]) -> None:
        """Take replies in: account for them, write them down, and only then answer."""
        try:
            await self._settle(replies)
        except Exception as error:
            self._break_down(error)

    async def _settle(self, replies: Sequence[Reply]) -> None:
        settlements, after = [], []
        for reply in replies:
            item = self._in_flight.pop(reply.number, None)
            if item is None:
                continue  # From a worker that was taken for dead.
            self._workers.give_back(item.worker)
            settlement = self._account(item, reply)
            settlements.append(settlement)
            after.append((item, settlement, reply))
        self._wake.set()
        try:
            await self._writer.settle(settlements)
        except Exception as error:
            for item, _, _ in after:
                item.sending = False
            self._fail_everything(self._cannot("written", error))
            return
        self._metrics.settled(settlements)
        for item, settlement, reply in after:
            item.sending = False
            self._conclude(item, settlement, reply)
        self._wake.set()

    def _account(self, item: _Item, reply: Reply) -> Settlement:
        """What a reply means for rates and budgets, and its row in the ledger."""
        now = self._now()
        if reply.wait is not None:
            self._throttle.pause(reply.wait, now)
        if reply.outcome == "answered":
            self._strikes, self._reached = 0, True
            return self._account_answer(item, reply)
        item.attempts += reply.outcome != "unstructured"
        if (
            reply.outcome == "throttled"
            and reply.wait is None
            and now >= self._throttle.paused_until
        ):
            self._throttle.pause(self._backoff(self._strikes), now)
            self._strikes += 1
        if reply.outcome == "unreachable":
            self._unreachable += 1
        else:
            self._reached = True
        if self._useless(reply):  # Nothing more is sent while this is written down.
            self._stop(item.question.model, reply.message)
        lost = reply.outcome == "lost"
        self._settle_accounts(item, item.most if lost else Amount())
        return Settlement(
            request=reply.number,
            state="lost" if lost else "refused",
            error=reply.message,
            latency=reply.latency,
        )

    def _account_answer(self, item: _Item, reply: Reply) -> Settlement:
        assert self._endpoint is not None
        # Without a count from the endpoint, what was set aside is what was spent.
        counted = reply.prompt_tokens is not None and reply.completion_tokens is not None
        prompt = reply.prompt_tokens if counted else item.most.tokens - item.max_tokens
        completion = reply.completion_tokens if counted else item.max_tokens
        assert prompt is not None
        assert completion is not None
        dollars = self._endpoint.dollars(item.question.model, prompt, completion)
        self._throttle.settle(item.likely, prompt + completion)
        self._settle_accounts(item, Amount(1, prompt + completion, dollars))
        item.prompt_tokens += prompt
        item.completion_tokens += completion
        verdict = read_verdict(reply.text) if reply.complete else None
        item.unreadable += verdict is None
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

    def _settle_accounts(self, item: _Item, actual: Amount) -> None:
        for account in (self._accounts[item.run], self._total):
            account.settle(item.most, actual)
        item.spent += actual

    def _conclude(self, item: _Item, settlement: Settlement, reply: Reply) -> None:
        """Answer a question, or have it asked again."""
        assert self._endpoint is not None
        if settlement.state == "answered":
            self._resolve(
                item,
                item.costing(
                    letter=settlement.verdict,
                    rationale=settlement.rationale,
                    latency=settlement.latency,
                ),
            )
        elif settlement.state == "unreadable":
            if item.unreadable >= _UNREADABLE:
                self._give_up(item, "unreadable", _NO_VERDICT)
            else:
                self._again(item, 0.0)
        elif self._useless(reply):
            self._fail(item, InputError(reply.message))
        elif reply.outcome == "too_long":
            self._give_up(item, "too_long", reply.message)
        elif reply.outcome == "unstructured" and item.structured:
            self._structured = False
            self._again(item, 0.0)
        elif reply.outcome in {"rejected", "unstructured"}:
            self._give_up(item, "rejected", reply.message)
        elif item.attempts >= self._endpoint.attempts:
            tries = f"{item.attempts} requests, the last one: {reply.message}"
            self._give_up(item, "unavailable", f"no answer after {tries}")
        else:
            # What was throttled waits with everybody; what failed by itself waits by itself.
            alone = 0.0 if reply.outcome == "throttled" else self._backoff(item.attempts - 1)
            self._again(item, alone)

    def _useless(self, reply: Reply) -> bool:
        """Whether a reply says that asking on is useless."""
        never_there = not self._reached and self._unreachable >= _UNREACHABLE
        return reply.outcome == "fatal" or (reply.outcome == "unreachable" and never_there)

    def _backoff(self, doublings: int) -> float:
        """Seconds: exponential, with jitter so that requests that failed together spread out."""
        assert self._endpoint is not None
        wait = min(
            self._endpoint.longest_wait, self._endpoint.first_wait * 2.0 ** min(doublings, 60)
        )
        return wait * self._random.uniform(0.5, 1.0)

    def _again(self, item: _Item, wait: float) -> None:
        if not item.waiters:
            self._abandon(item)
        elif item.question.model in self._stopped:
            self._fail(item, InputError(self._stopped[item.question.model]))
        elif wait > 0:
            heapq.heappush(self._later, (self._now() + wait, next(self._sequence), item))
        else:
            self._return_to_queue(item)

    async def _lose(self, worker: int) -> None:
        """A worker's process ended: what it was sending may have been charged."""
        numbers = [number for number, item in self._in_flight.items() if item.worker == worker]
        message = "the process that sent it ended"
        await self.settle([Reply(number=n, outcome="lost", message=message) for n in numbers])

    # Ends of questions.

    def _resolve(self, item: _Item, answer: Answer) -> None:
        self._forget(item)
        if not item.answer.done():
            item.answer.set_result(answer)

    def _give_up(self, item: _Item, reason: Reason, message: str) -> None:
        self._metrics.failed(reason)
        self._resolve(item, item.costing(failure=reason, message=message))

    def _fail(self, item: _Item, error: BaseException) -> None:
        self._forget(item)
        if not item.answer.done():
            item.answer.set_exception(error)

    def _stop(self, model: str, message: str) -> None:
        """Say that asking this model is useless to everybody who waits for it."""
        self._stopped[model] = message
        for other in [other for other in self._pending.values() if other.question.model == model]:
            if not other.sending:
                self._fail(other, InputError(message))

    def _fail_everything(self, error: BaseException) -> None:
        for item in list(self._pending.values()):
            sending = item.sending
            self._fail(item, error)
            if sending:  # Its answer may still come, and who asks again meanwhile waits for it.
                item.answer = asyncio.get_running_loop().create_future()
                item.waiters.clear()
                self._pending[item.question.key] = item

    def _cannot(self, do: str, error: Exception) -> InputError:
        assert self._endpoint is not None
        return InputError(f"ledger: {self._endpoint.ledger_file} cannot be {do} ({error})")

    # Life.

    async def _watch(self) -> None:
        """Let clients go whose lease ran out; end when there was none for a while."""
        assert self._endpoint is not None
        self._idle_since = self._now()
        while True:
            await asyncio.sleep(_TICK)
            now = self._now()
            for client, renewed in list(self._clients.items()):
                if now - renewed > CLIENT_LEASE:
                    await self.detach(client)
            self._metrics.level(len(self._in_flight), len(self._pending) - len(self._in_flight))
            if self._clients or self._in_flight:
                self._idle_since = now
            elif now - self._idle_since > self._endpoint.lease and not self._attaching.locked():
                self._leaving = True
                self._writer.close()
                leave()
                return

    def _keep(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """A task that lives as long as the gate, and whose failure ends everybody's waiting."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                self._break_down(error)

        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(ended)

    def _break_down(self, error: BaseException) -> None:
        """A bug: whoever waits, and whoever asks from now on, gets its traceback."""
        self._crash = error
        self._fail_everything(error)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _caps(budget: Budget) -> str:
    caps = [f"{value:g} {name}" for name, value in budget.model_dump(exclude_none=True).items()]
    return ", ".join(caps) or "none"


_NO_VERDICT = "asked twice, and neither answer held a verdict"


def _from_ledger(remembered: Remembered) -> Answer | None:
    if remembered.verdict is not None:
        return Answer(letter=remembered.verdict, rationale=remembered.rationale, cached=True)
    if remembered.unreadable >= _UNREADABLE:
        return Answer(failure="unreadable", message=_NO_VERDICT, cached=True)
    return None
