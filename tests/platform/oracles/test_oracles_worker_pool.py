"""The distribution of requests over workers, some of which have ended."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from modicum.oracles.endpoint.messages import Request
from modicum.oracles.endpoint.settings import Endpoint
from modicum.oracles.endpoint.workers import WorkerPool


def requests(*numbers):
    return [Request(number, "judge", "", "?", 0.0, 50, False) for number in numbers]


def pool_of(count):
    """A pool, the numbers that each worker was sent, and those that were reported as lost."""
    sent, lost = [[] for _ in range(count)], []

    async def report(numbers):
        lost.append(numbers)

    pool = WorkerPool(Endpoint(base_url="http://endpoint/v1", workers=count), report)

    def handle(index):
        def remote(batch):
            sent[index] += [request.number for request in batch]

        return SimpleNamespace(
            send=SimpleNamespace(options=lambda num_returns: SimpleNamespace(remote=remote))
        )

    pool._handles = [handle(index) for index in range(count)]
    pool._alive = [True] * count
    return pool, sent, lost


def test_the_worker_with_the_least_to_do_is_next():
    pool, sent, _ = pool_of(3)
    pool.send(requests(1, 2, 3, 4))
    assert sent == [[1, 4], [2], [3]]
    for number in (1, 4, 4, 99):  # Settled twice, and never sent: ignored.
        pool.settled(number)
    pool.send(requests(5, 6, 7))
    assert sent == [[1, 4, 5, 6], [2, 7], [3]]


def test_a_worker_that_ended_gets_no_requests_and_loses_its_own():
    async def scenario():
        pool, sent, lost = pool_of(2)
        pool.send(requests(1, 2, 3))
        pool.settled(1)
        pool._alive[0] = False
        await pool._report_lost(0)
        assert lost == [[3]]
        pool.send(requests(4, 5))
        assert sent == [[1, 3], [2, 4, 5]]
        assert pool.ready
        pool._alive[1] = False
        assert not pool.ready
        pool.settled(3)
        pool.send(requests(6))  # While it was being reserved, the last worker ended.
        await asyncio.gather(*pool._tasks)
        assert lost[1:] == [[6]]

    asyncio.run(scenario())
