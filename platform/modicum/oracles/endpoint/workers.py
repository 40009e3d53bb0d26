"""The gate's worker actors: they send requests, many at once, through OpenAI's client.

A worker reports what every reply means; all decisions are the gate's. API keys are read on the
machine that uses them, and removed from every text that comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from modicum.errors import InputError
from modicum.oracles.endpoint.messages import Reply, Request
from modicum.oracles.endpoint.responses import read_completion, read_error, wait_until_reset
from modicum.oracles.endpoint.settings import Endpoint
from modicum.oracles.endpoint.templates import RESPONSE_FORMAT

# Length of the shortest part of a key that is recognised in a text.
_SHORTEST = 8
# Seconds for which replies are gathered before they are reported.
_GATHER_SECONDS = 0.02
# Seconds before another attempt to start a worker.
_RETRY_SECONDS = 1.0


def read_key(endpoint: Endpoint) -> str | None:
    """Read the endpoint's key on this machine; None if the endpoint needs none.

    Raises:
        InputError: The variable is unset here, or the file cannot be read. No key is ever quoted.
    """
    if endpoint.key_file is not None:
        # The path is not quoted: it may be a key, put there by mistake.
        path = endpoint.key_file.expanduser()
        try:
            key = path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            kind = getattr(error, "strerror", None) or "it is not text"
            raise InputError(f"key_file: the file cannot be read ({kind})") from None
        if not _is_a_key(key):
            raise InputError("key_file: the file must hold one key and nothing else")
        return key
    if endpoint.key_name is None:
        return None
    key = os.environ.get(endpoint.key_name, "").strip()
    if not key:
        raise InputError(
            f"key_variable: {endpoint.key_name} is not set on the machine that sends requests; set "
            "it before Ray is started there, or name a key_file"
        )
    if not _is_a_key(key):
        raise InputError(f"key_variable: {endpoint.key_name} must hold one key and nothing else")
    return key


def _is_a_key(text: str) -> bool:
    """True for a single word that an HTTP header can hold."""
    return len(text.split()) == 1 and text.isascii() and text.isprintable()


def without_key(text: str, key: str) -> str:
    """Replace every recognisable part of a key in a text by `[key]`."""
    parts = {key[start : start + _SHORTEST] for start in range(len(key) - _SHORTEST + 1)}
    hidden: list[tuple[int, int]] = []
    for start in range(len(text) - _SHORTEST + 1):
        if text[start : start + _SHORTEST] in parts:
            first = hidden.pop()[0] if hidden and hidden[-1][1] >= start else start
            hidden.append((first, start + _SHORTEST))
    for first, end in reversed(hidden):
        text = f"{text[:first]}[key]{text[end:]}"
    return text


class Worker:
    """Sends requests, and reports their replies to the gate in batches."""

    def __init__(self, endpoint: Endpoint, gate: Any) -> None:
        self._endpoint = endpoint
        self._gate = gate
        self._replies: list[Reply] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._reporting = False

    async def open(self) -> None:
        """Prepare for sending.

        Raises:
            InputError: There is no key on this machine.
        """
        import openai

        self._key = read_key(self._endpoint)
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self._endpoint.base_url,
            timeout=self._endpoint.timeout,
            max_retries=0,
            http_client=openai.DefaultAioHttpClient(),  # A third less work for each request.
        )

    async def serve(self) -> None:
        """Never return: the call's end tells the gate that this process has ended."""
        await asyncio.Event().wait()

    async def send(self, requests: list[Request]) -> None:
        """Start sending requests; their replies go to the gate as they arrive."""
        for request in requests:
            task = asyncio.ensure_future(self._send_and_report(request))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _send_and_report(self, request: Request) -> None:
        reply = await self.ask(request)
        self._replies.append(reply)
        if self._reporting:
            return
        self._reporting = True
        try:
            while self._replies:
                # Requests sent together are answered at about the same time: one message for all.
                await asyncio.sleep(_GATHER_SECONDS)
                batch, self._replies = self._replies, []
                await self._gate.settle.remote(batch)
        finally:
            self._reporting = False

    async def ask(self, request: Request) -> Reply:
        """Send a request and return its reply, whatever happens."""
        started = time.perf_counter()
        try:
            return await self._ask(request, started)
        except Exception as error:
            problem = read_error(error, self._endpoint)
            return Reply(
                number=request.number,
                outcome=problem.outcome,
                wait=problem.wait,
                latency=time.perf_counter() - started,
                message=self._without_key(problem.message),
            )

    async def _ask(self, request: Request, started: float) -> Reply:
        import httpx2

        messages = [{"role": "user", "content": request.user}]
        if request.system:
            messages.insert(0, {"role": "system", "content": request.system})
        arguments: dict[str, Any] = {
            "model": request.model,
            "messages": messages,
            "temperature": request.temperature,
            self._endpoint.limit_parameter: request.max_tokens,
        }
        if request.structured:
            arguments["response_format"] = RESPONSE_FORMAT
        # `chat.completions.create` calls this method, after spending two thirds of a request's
        # time on validating types that are known here.
        response = await self._client.post(
            "/chat/completions", cast_to=httpx2.Response, body=arguments
        )
        text, complete, usage = read_completion(response.content)
        return Reply(
            number=request.number,
            outcome="answered",
            text=self._without_key(text),
            complete=complete,
            prompt_tokens=usage.get("prompt_tokens"),
            completion_tokens=usage.get("completion_tokens"),
            latency=time.perf_counter() - started,
            wait=wait_until_reset(response.headers),
        )

    def _without_key(self, text: str) -> str:
        return without_key(text.encode("utf-8", "replace").decode("utf-8"), self._key or "")


class WorkerPool:
    """Worker actors on the cluster's nodes in turn; on the gate's node if another has no key.

    The workers are children of the gate, so Ray ends them when the gate ends.
    `lost` is called with the numbers of the requests of a worker whose process has ended.
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
