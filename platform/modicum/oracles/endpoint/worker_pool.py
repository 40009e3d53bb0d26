"""The gate's worker actors: placement, load, and replacement of workers that ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from modicum.errors import InputError
from modicum.oracles.endpoint.messages import Request
from modicum.oracles.endpoint.request_worker import Worker
from modicum.oracles.endpoint.settings import Endpoint

# Seconds before another attempt to start a worker.
_RETRY_SECONDS = 1.0


class WorkerPool:
    """Worker actors on the cluster's nodes in turn; on the gate's node if another has no key.

    The workers are children of the gate, so Ray ends them when the gate ends.

    Args:
        endpoint: Endpoint to which the workers send requests.
        lost: Called with the numbers of the requests of a worker whose process has ended.
    """

    def __init__(self, endpoint: Endpoint, lost: Callable[[list[int]], Awaitable[None]]) -> None:
        self._endpoint = endpoint
        self._lost = lost
        count = endpoint.workers
        self._handles: list[Any] = [None] * count
        self._nodes = [""] * count
        self._alive = [False] * count
        self._loads = [0] * count
        self._worker_of: dict[int, int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start all workers.

        Raises:
            InputError: There is no key on the gate's node.
        """
        indices = range(self._endpoint.workers)
        launched = await asyncio.gather(
            *(self._launch(index) for index in indices), return_exceptions=True
        )
        for error in launched:
            if error is not None:
                for handle in self._handles:
                    if handle is not None:
                        ray.kill(handle)
                raise error
        self._tasks = [asyncio.ensure_future(self._watch(index)) for index in indices]

    async def _launch(self, index: int) -> None:
        context = ray.get_runtime_context()
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        alive = sorted(node["NodeID"] for node in nodes if node["Alive"])
        here = context.get_node_id()
        there = alive[index % len(alive)] if alive else here
        for node in dict.fromkeys((there, here)):
            handle: Any = (
                ray.remote(Worker)
                .options(
                    num_cpus=0,
                    max_concurrency=1000,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True),
                )
                .remote(self._endpoint, context.current_actor)
            )
            try:
                await handle.open.remote()
            except (InputError, ray.exceptions.RayError) as error:
                # The node has no key, or has just ended.
                with contextlib.suppress(ray.exceptions.RayError):
                    ray.kill(handle)
                if node != here:
                    continue
                if isinstance(error, InputError):
                    raise InputError(str(error)) from None
                raise
            self._handles[index], self._nodes[index] = handle, node
            self._alive[index] = True
            return

    async def _watch(self, index: int) -> None:
        """Wait until a worker ends, report its requests as lost, and start another worker."""
        while True:
            try:
                await self._handles[index].serve.remote()
            except ray.exceptions.RayError:
                self._alive[index] = False
            with contextlib.suppress(ray.exceptions.RayError, ValueError):
                ray.kill(self._handles[index])  # The process may be cut off rather than dead.
            await self._report_lost(index)
            while not self._alive[index]:
                try:
                    await self._launch(index)
                except (ray.exceptions.RayError, InputError):
                    await asyncio.sleep(_RETRY_SECONDS)

    async def _report_lost(self, index: int) -> None:
        await self._lost([n for n, worker in self._worker_of.items() if worker == index])

    def send(self, requests: Sequence[Request]) -> None:
        """Distribute requests over the workers with the lowest loads."""
        batches: dict[int, list[Request]] = {}
        for request in requests:
            index = min(range(len(self._loads)), key=lambda i: (not self._alive[i], self._loads[i]))
            self._loads[index] += 1
            self._worker_of[request.number] = index
            batches.setdefault(index, []).append(request)
        for index, batch in batches.items():
            if self._alive[index]:
                self._handles[index].send.options(num_returns=0).remote(batch)
            else:  # The watcher has already reported this worker's requests.
                self._tasks.append(asyncio.ensure_future(self._report_lost(index)))

    def settled(self, number: int) -> None:
        """Take note that a request is no longer under way."""
        index = self._worker_of.pop(number, None)
        if index is not None:
            self._loads[index] -= 1

    @property
    def ready(self) -> bool:
        """True if any worker can send requests."""
        return any(self._alive)

    @property
    def nodes(self) -> list[str]:
        """Nodes of the workers."""
        return list(self._nodes)
