"""The actor that sends requests: many at once, in one process, with the official client.

It decides nothing. What an error means is told to the gate, which decides for everybody.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import aiohttp

from modicum.oracles.endpoint.messages import Outcome, Reply, Request
from modicum.oracles.endpoint.settings import Endpoint, read_key
from modicum.oracles.endpoint.templates import ANSWER_SCHEMA

if TYPE_CHECKING:
    import openai

_RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "judgement", "strict": True, "schema": ANSWER_SCHEMA},
}
# Bytes that structured output adds to a request: endpoints may charge for them.
SCHEMA_BYTES = len(json.dumps(_RESPONSE_FORMAT))
# What bodies that are no completion make of their reading.
_NO_COMPLETION = (
    *(ValueError, LookupError, TypeError, AttributeError),
    *(OverflowError, RecursionError),
)
_COUNTS = ("prompt_tokens", "completion_tokens")
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?")
# Parts of a key that are shorter tell nothing: such texts are left alone.
_SHORTEST = 8
_NEVER_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
# What servers say that name no code; OpenAI and vLLM, llama.cpp.
_TOO_LONG = re.compile("maximum context|context (size|length|window)", re.IGNORECASE)
# An endpoint that asks everybody to wait longer is not waited for, seconds.
_LONGEST_PAUSE = 3600.0
# Replies are gathered for so long before they are reported, seconds.
_GATHER = 0.02
# No answer has more; a count above it is an error of the endpoint's, and no ledger could hold it.
_MOST_TOKENS = 10**12


class Worker:
    """Sends requests and reports to the gate in batches: what came in while it was reporting.

    Args:
        endpoint: Where to send them.
        gate: Handle of the gate's actor.
    """

    def __init__(self, endpoint: Endpoint, gate: Any) -> None:
        self._endpoint = endpoint
        self._gate = gate
        self._replies: list[Reply] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._reporting = False

    async def open(self) -> None:
        """Get ready to send.

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
        """Never returns: that it ends tells the gate that this process has."""
        await asyncio.Event().wait()

    async def send(self, requests: list[Request]) -> None:
        """Start sending; each reply goes to the gate as it arrives."""
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
                # What was sent together comes back nearly together: one message for all of it.
                await asyncio.sleep(_GATHER)
                batch, self._replies = self._replies, []
                await self._gate.settle.remote(batch)
        finally:
            self._reporting = False

    async def ask(self, request: Request) -> Reply:
        """One request, one reply, whatever happens."""
        started = time.perf_counter()
        try:
            return await self._ask(request, started)
        except Exception as error:
            outcome, wait, message = self._meaning(error)
            return Reply(
                number=request.number,
                outcome=outcome,
                wait=wait,
                latency=time.perf_counter() - started,
                message=self._without_key(message),
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
            arguments["response_format"] = _RESPONSE_FORMAT
        # The client's own method beneath `chat.completions.create`, which spends two thirds of a
        # request's time on checking types that are known here.
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
            wait=_wait_until_reset(response.headers),
        )

    def _meaning(self, error: Exception) -> tuple[Outcome, float | None, str]:
        """What an error means, how long everybody has to wait, and a sentence about it."""
        import openai

        if isinstance(error, openai.APIConnectionError):
            causes = list(_causes(error))
            # A connection that was never made and one that broke before an answer look alike,
            # as timeouts, but for what the transport met: nothing was sent on the first.
            if any(isinstance(cause, _NEVER_CONNECTED) for cause in causes):
                return (
                    "unreachable",
                    None,
                    f"base_url: nothing answers at {self._endpoint.base_url}",
                )
            # From here on it may have been charged.
            if any(isinstance(cause, aiohttp.ServerTimeoutError) for cause in causes):
                return "lost", None, f"no answer within {self._endpoint.timeout:g} s"
            return "lost", None, f"the connection broke ({type(causes[-1]).__name__})"
        if isinstance(error, openai.APIStatusError):
            return self._status(error)
        if isinstance(error, NoCompletionError):
            return "lost", None, "the answer is no chat completion"
        # Nobody would wait for a request without a reply for ever. What is not known is not quoted.
        return "lost", None, f"sending failed ({type(error).__name__})"

    def _status(self, error: openai.APIStatusError) -> tuple[Outcome, float | None, str]:
        status, code = error.status_code, str(error.code or error.type or "")
        said = f"{status}: {error.message}"
        url = self._endpoint.base_url
        if status in {401, 403}:
            # Not quoted: what servers say here often holds a part of the key.
            source = self._endpoint.key_name or self._endpoint.key_file or "there is none"
            return "fatal", None, f"{url} does not accept the key ({status}; key: {source})"
        if status == 404:
            return "fatal", None, f"no such model, or no such address at {url} ({said})"
        if status == 402 or (status == 429 and "insufficient_quota" in code):
            return "fatal", None, f"the account has no credit left ({said})"
        if status in {408, 409, 429} or status >= 500:
            wait = _retry_after(error.response.headers)
            if wait is not None and wait > _LONGEST_PAUSE:
                return "fatal", None, f"{url} asks to wait {wait / 3600:.1f} hours ({said})"
            return "throttled" if status == 429 else "failed", wait, said
        if "context_length" in code or _TOO_LONG.search(error.message):
            return "too_long", None, said
        if "response_format" in error.message:
            return "unstructured", None, said
        if "model" in code:
            return "fatal", None, said
        return "rejected", None, said

    def _without_key(self, text: str) -> str:
        """A text with the key taken out, and every part of it that is long enough to tell."""
        return without_parts(text.encode("utf-8", "replace").decode("utf-8"), self._key or "")


def without_parts(text: str, key: str) -> str:
    """A text with `[key]` in the place of every part of a key that is long enough to tell."""
    parts = {key[start : start + _SHORTEST] for start in range(len(key) - _SHORTEST + 1)}
    hidden: list[tuple[int, int]] = []
    for start in range(len(text) - _SHORTEST + 1):
        if text[start : start + _SHORTEST] in parts:
            first = hidden.pop()[0] if hidden and hidden[-1][1] >= start else start
            hidden.append((first, start + _SHORTEST))
    for first, end in reversed(hidden):
        text = f"{text[:first]}[key]{text[end:]}"
    return text


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What an error came of, the first cause last."""
    cause = error.__cause__
    while cause is not None:
        yield cause
        cause = cause.__cause__


class NoCompletionError(Exception):
    """A body that is no chat completion."""


def read_completion(body: bytes) -> tuple[str, bool, Mapping[str, int]]:
    """Text of a completion, whether it is whole, and the tokens that were counted.

    Raises:
        NoCompletionError: Not JSON, no choices, or other types than promised.
    """
    try:
        completion = json.loads(body)
        choice = completion["choices"][0]
        text = choice["message"]["content"] or ""
        usage = completion.get("usage") or {}
        counts = {name: int(usage[name]) for name in _COUNTS if name in usage}
    except _NO_COMPLETION as error:
        raise NoCompletionError from error
    if not isinstance(text, str) or not all(0 <= n <= _MOST_TOKENS for n in counts.values()):
        raise NoCompletionError
    # JSON can hold halves of surrogate pairs, which no file can.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text, choice.get("finish_reason") != "length", counts


def _retry_after(headers: Any) -> float | None:
    """Seconds that an endpoint asks to wait, from `retry-after-ms` or `Retry-After`.

    A date in the place of seconds is the time until then.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is None and value:
        from email.utils import parsedate_to_datetime

        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return None if seconds is None else max(seconds, 0.0)


def _wait_until_reset(headers: Any) -> float | None:
    """Seconds until a limit is reset of which nothing remains, from `x-ratelimit-…` headers."""
    waits = [
        parse_duration(headers.get(f"x-ratelimit-reset-{kind}"))
        for kind in ("requests", "tokens")
        if _number(headers.get(f"x-ratelimit-remaining-{kind}")) == 0
    ]
    known = [wait for wait in waits if wait is not None]
    return max(known) if known else None


def parse_duration(text: str | None) -> float | None:
    """Seconds of a duration such as `6m0s`, `1h2m3.5s`, `250ms` or `1.5`; None if it is none."""
    plain = _number(text)
    if plain is not None:
        return plain
    match = _DURATION.fullmatch(text.strip()) if text else None
    if match is None or not any(match.groups()):
        return None
    parts = [_number(part or "0") for part in match.groups()]
    if None in parts:
        return None
    hours, minutes, seconds, milliseconds = (part or 0.0 for part in parts)
    return 3600 * hours + 60 * minutes + seconds + milliseconds / 1000


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and 0 <= value < float("inf") else None
