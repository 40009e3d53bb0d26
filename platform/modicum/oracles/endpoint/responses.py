"""Reading an endpoint's responses: completions, errors, and headers about rate limits."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp

from modicum.oracles.endpoint.messages import Outcome
from modicum.oracles.endpoint.settings import Endpoint

if TYPE_CHECKING:
    import openai

# Exceptions from reading a body that is no chat completion.
_UNREADABLE = (
    *(ValueError, LookupError, TypeError, AttributeError),
    *(OverflowError, RecursionError),
)
_COUNTS = ("prompt_tokens", "completion_tokens")
# A larger count is an error of the endpoint, and too large for a ledger.
_MOST_TOKENS = 10**12
_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?")
_NEVER_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
# Messages of servers that send no error code: OpenAI and vLLM, llama.cpp.
_TOO_LONG = re.compile("maximum context|context (size|length|window)", re.IGNORECASE)
# Longest pause that an endpoint may ask for, seconds; beyond it all questions fail.
_LONGEST_PAUSE = 3600.0


class NoCompletionError(Exception):
    """A response body that is no chat completion."""


def read_completion(body: bytes) -> tuple[str, bool, Mapping[str, int]]:
    """Read a chat completion.

    Returns:
        The text, whether it is complete, and the counts `prompt_tokens` and `completion_tokens`
        where the endpoint gives them.

    Raises:
        NoCompletionError: The body is not JSON, has no choices, or has values of other types.
    """
    try:
        completion = json.loads(body)
        choice = completion["choices"][0]
        text = choice["message"]["content"] or ""
        usage = completion.get("usage") or {}
        counts = {name: int(usage[name]) for name in _COUNTS if name in usage}
    except _UNREADABLE as error:
        raise NoCompletionError from error
    if not isinstance(text, str) or not all(0 <= n <= _MOST_TOKENS for n in counts.values()):
        raise NoCompletionError
    # JSON can hold lone surrogates, which UTF-8 files cannot.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text, choice.get("finish_reason") != "length", counts


class Problem(NamedTuple):
    """The meaning of an error."""

    outcome: Outcome
    message: str  # One sentence about the error, which may hold the key.
    # Seconds during which the endpoint asks all clients to send nothing; None if it does not ask.
    wait: float | None = None


def read_error(error: Exception, endpoint: Endpoint) -> Problem:
    """The meaning of an exception that was raised while a request was sent."""
    import openai

    if isinstance(error, openai.APIConnectionError):
        causes = list(_causes(error))
        # The client raises the same error for a connection that was never made and for one that
        # broke before the answer. Their causes differ: nothing was sent on the first.
        if any(isinstance(cause, _NEVER_CONNECTED) for cause in causes):
            return Problem("unreachable", f"base_url: nothing answers at {endpoint.base_url}")
        # From here on, the request may have been charged.
        if any(isinstance(cause, aiohttp.ServerTimeoutError) for cause in causes):
            return Problem("lost", f"no answer within {endpoint.timeout:g} s")
        return Problem("lost", f"the connection broke ({type(causes[-1]).__name__})")
    if isinstance(error, openai.APIStatusError):
        return _read_status(error, endpoint)
    if isinstance(error, NoCompletionError):
        return Problem("lost", "the answer is no chat completion")
    # Every request needs a reply. The text of an unknown error is not quoted.
    return Problem("lost", f"sending failed ({type(error).__name__})")


def _read_status(error: openai.APIStatusError, endpoint: Endpoint) -> Problem:
    status, code = error.status_code, str(error.code or error.type or "")
    said = f"{status}: {error.message}"
    url = endpoint.base_url
    if status in {401, 403}:
        # The error's text is not quoted: it often holds a part of the key.
        source = endpoint.key_name or endpoint.key_file or "there is none"
        return Problem("fatal", f"{url} does not accept the key ({status}; key: {source})")
    if status == 404:
        return Problem("fatal", f"no such model, or no such address at {url} ({said})")
    if status == 402 or (status == 429 and "insufficient_quota" in code):
        return Problem("fatal", f"the account has no credit left ({said})")
    if status in {408, 409, 429} or status >= 500:
        wait = retry_after(error.response.headers)
        if wait is not None and wait > _LONGEST_PAUSE:
            return Problem("fatal", f"{url} asks to wait {wait / 3600:.1f} hours ({said})")
        return Problem("throttled" if status == 429 else "failed", said, wait)
    if "context_length" in code or _TOO_LONG.search(error.message):
        return Problem("too_long", said)
    if "response_format" in error.message:
        return Problem("unstructured", said)
    return Problem("fatal" if "model" in code else "rejected", said)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The chain of an error's causes; the root cause comes last."""
    cause = error.__cause__
    while cause is not None:
        yield cause
        cause = cause.__cause__


def retry_after(headers: Any) -> float | None:
    """Seconds that an endpoint asks to wait, from `retry-after-ms` or `Retry-After`.

    `Retry-After` holds seconds, or a date, which means the time until then.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is None and value:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return None if seconds is None else max(seconds, 0.0)


def wait_until_reset(headers: Any) -> float | None:
    """Seconds until the reset of a limit of which nothing remains, from `x-ratelimit-…` headers."""
    waits = [
        parse_duration(headers.get(f"x-ratelimit-reset-{kind}"))
        for kind in ("requests", "tokens")
        if _number(headers.get(f"x-ratelimit-remaining-{kind}")) == 0
    ]
    known = [wait for wait in waits if wait is not None]
    return max(known) if known else None


def parse_duration(text: str | None) -> float | None:
    """Seconds of a duration such as `6m0s`, `1h2m3.5s`, `250ms` or `1.5`; None for other texts."""
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
