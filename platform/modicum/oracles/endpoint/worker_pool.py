"""The gate's worker actors: where they are, how busy, and new ones for those that ended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

from modicum.errors import InputError
from modicum.oracles.endpoint.messages import Request
from modicum.oracles.endpoint.request_worker import Worker
from modicum.oracles.endpoint.settings import Endpoint

# Wait before starting a worker again whose start failed, seconds.
_RETRY = 1.0


class Workers:
    """Worker actors over the cluster's nodes in turn; on the gate's own where others have no key.

    They are the gate's children, so Ray ends them when the gate ends.

    Args:
        endpoint: What they send requests to.
        lost: Called with a worker's number when its process has ended.
    """

    def __init__(self, endpoint: Endpoint, lost: Callable[[int], Awaitable[None]]) -> None:
        self._endpoint = endpoint
        self._lost = lost
        self._handles: list[Any] = []
        self._nodes: list[str] = []
        self._loads: list[int] = []
        self._alive: list[bool] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start them all.

        Raises:
            InputError: There is no key on the gate's node.
        """
        count = self._endpoint.workers
        self._handles, self._nodes = [None] * count, [""] * count
        self._loads, self._alive = [0] * count, [False] * count
        launched = await asyncio.gather(
            *(self._launch(index) for index in range(count)), return_exceptions=True
        )
        for error in launched:
            if error is not None:
                self._end_all()
                raise error
        self._tasks = [asyncio.ensure_future(self._watch(index)) for index in range(count)]

    async def _launch(self, index: int) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

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
                # There is no key there, or the node has just ended.
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
        """Wait for a worker to end; say so, and start another."""
        import ray

        while True:
            try:
                await self._handles[index].serve.remote()
            except ray.exceptions.RayError:
                self._alive[index] = False
            with contextlib.suppress(ray.exceptions.RayError, ValueError):
                ray.kill(self._handles[index])  # It may be cut off rather than dead.
            await self._lost(index)
            while not self._alive[index]:
                try:
                    await self._launch(index)
                except (ray.exceptions.RayError, InputError):
                    await asyncio.sleep(_RETRY)

    def take(self) -> int:
        """The worker with the least to do, with one request more from now on."""
        index = min(range(len(self._loads)), key=lambda i: (not self._alive[i], self._loads[i]))
        self._loads[index] += 1
        return index

    def give_back(self, index: int) -> None:
        """One of a worker's requests is settled."""
        self._loads[index] = max(0, self._loads[index] - 1)

    def send(self, index: int, requests: list[Request]) -> None:
        """Have a worker send requests; if it has ended, its watcher will say that they are lost."""
        if self._alive[index]:
            self._handles[index].send.options(num_returns=0).remote(requests)
        else:  # Its watcher has said so already.
            self._tasks.append(asyncio.ensure_future(self._lost(index)))

    @property
    def ready(self) -> bool:
        """Whether there is a worker to send with."""
        return any(self._alive)

    def places(self) -> list[str]:
        """Nodes of the workers."""
        return list(self._nodes)

    def _end_all(self) -> None:
        import ray

        for handle in self._handles:
            if handle is not None:
                ray.kill(handle)


def leave() -> None:
    """End the gate's process, and so the workers; called by the gate.

    An orderly exit would wait for the calls of `serve`, which never return.
    """
    import ray

    ray.kill(ray.get_runtime_context().current_actor)
