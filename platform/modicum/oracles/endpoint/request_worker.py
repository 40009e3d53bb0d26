"""The actor that sends requests: many at once, in one process, through OpenAI's client.

The worker reports what every reply means; all decisions are the gate's.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from modicum.oracles.endpoint.keys import read_key, without_key
from modicum.oracles.endpoint.messages import Reply, Request
from modicum.oracles.endpoint.responses import read_completion, read_error, wait_until_reset
from modicum.oracles.endpoint.settings import Endpoint
from modicum.oracles.endpoint.templates import RESPONSE_FORMAT

# Seconds for which replies are gathered before they are reported.
_GATHER_SECONDS = 0.02


class Worker:
    """Sends requests, and reports their replies to the gate in batches.

    Args:
        endpoint: Endpoint to which requests are sent.
        gate: Handle of the gate's actor.
    """

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
