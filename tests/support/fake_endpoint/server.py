"""The server: HTTP/1.1 by hand, for a load test measures the client and not this."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from fake_endpoint import answers
from fake_endpoint.answers import Answer
from fake_endpoint.behaviour import Behaviour
from fake_endpoint.log import Log, question_digest

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
KEY = re.compile(rb"\r\nauthorization: *bearer +([^\r\n]*)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    411: "Length Required",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
COLUMNS = tuple(each.name for each in fields(Log) if each.name != "maximum_concurrency")


@dataclass
class Entry:
    """A row of the log, while it is written."""

    arrived: float
    wall: float
    question: str = ""
    outcome: str = "pending"
    status: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    verdict: str | None = None
    finished: float | None = None


class State:
    """Behaviour and accounts, shared by all connections."""

    def __init__(self, behaviour: Behaviour):
        self.behave(behaviour)
        self.reset()

    def behave(self, behaviour: Behaviour) -> None:
        before: Behaviour | None = getattr(self, "behaviour", None)
        if before is None or before.script != behaviour.script:
            self.script = deque(behaviour.script)
        self.behaviour = behaviour

    def reset(self) -> None:
        """Clear the account; requests under way end in the account in which they began."""
        self.entries: list[Entry] = []
        self.asked: Counter[str] = Counter()
        self.in_flight = 0
        self.maximum_concurrency = 0
        self.script = deque(self.behaviour.script)

    def draw(self, question: str) -> float:
        """A uniform number in [0, 1) for this asking of the question."""
        text = f"{self.behaviour.seed} {question} {self.asked[question]}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") / 2**64

    def decide(self, entry: Entry, body: bytes, key: str | None) -> tuple[Answer, float]:
        """The answer to a request and the seconds before it is sent."""
        behaviour = self.behaviour
        refused = answers.wrong_key(behaviour, key)
        if refused is not None:
            return refused, 0.0
        question = answers.read_question(body)
        if question is None:
            return answers.bad_request("The body is not a request for a chat completion."), 0.0
        entry.question = question_digest(question.user, question.model, question.temperature)
        refused = answers.refusal(behaviour, question)
        if refused is not None:
            return refused, 0.0
        draw = self.draw(entry.question)
        fault = self.script[0] if self.script else answers.chosen_fault(behaviour, draw)
        answer = answers.refused_by_fault(behaviour, fault) or answers.generate(
            behaviour,
            question,
            fault,
            answers.letter(behaviour, question),
            len(self.entries),
            int(entry.wall),
        )
        self.asked[entry.question] += 1
        if self.script:
            self.script.popleft()
        return answer, behaviour.hang_seconds if fault == "hang" else behaviour.delay

    def log(self) -> dict[str, Any]:
        """The log, by columns."""
        table = {name: [getattr(entry, name) for entry in self.entries] for name in COLUMNS}
        return {**table, "maximum_concurrency": self.maximum_concurrency}

    def counters(self) -> dict[str, Any]:
        """Counters that are cheap to read while a test runs."""
        return {
            "requests": len(self.entries),
            "outcomes": Counter(entry.outcome for entry in self.entries),
            "in_flight": self.in_flight,
            "maximum_concurrency": self.maximum_concurrency,
            "cpu_seconds": time.process_time(),
        }


class Connection(asyncio.Protocol):
    """One connection; its requests are answered one after the other."""

    def __init__(self, state: State):
        self.state = state
        self.buffer = b""
        self.transport: asyncio.Transport
        self.entry: Entry | None = None
        self.account: list[Entry] = []
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.entry is not None:
            if self.entry.outcome != "hang":
                self.entry.outcome = "abandoned"
            self.entry.status = 0
            self.entry.verdict = None
            self.finish()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while self.entry is None and not self.transport.is_closing():
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self.buffer[: end + 2]
            found = LENGTH.search(head)
            length = int(found[1]) if found else 0
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            if CHUNKED.search(head):
                self.send(411, b"{}", {"connection": "close"})
                self.transport.close()
                return
            self.handle(head, body)

    def handle(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        if path == "/v1/chat/completions" and method == "POST":
            self.complete(head, body)
        elif path.startswith("/control/"):
            self.control(method, path.removeprefix("/control/"), body)
        else:
            said = f"Invalid URL ({method} {path})"
            refused = answers.error(404, "no_path", said, "invalid_request_error", None)
            self.send(404, refused.body)

    def complete(self, head: bytes, body: bytes) -> None:
        state = self.state
        self.entry = entry = Entry(time.monotonic(), time.time())
        self.account = state.entries
        state.entries.append(entry)
        state.in_flight += 1
        state.maximum_concurrency = max(state.maximum_concurrency, state.in_flight)
        answer, delay = state.decide(entry, body, key_of(head))
        entry.prompt_tokens = answer.prompt_tokens
        entry.completion_tokens = answer.completion_tokens
        if answer.outcome == "hang":
            entry.outcome = "hang"
        if delay > 0:
            self.timer = asyncio.get_running_loop().call_later(delay, self.answer, answer)
        else:
            self.answer(answer)

    def answer(self, answer: Answer) -> None:
        assert self.entry is not None
        self.timer = None
        entry = self.entry
        entry.outcome = answer.outcome
        entry.verdict = answer.verdict
        if answer.outcome not in ("dropped", "hang"):
            entry.status = answer.status
            half = answer.outcome == "dropped_midway"
            self.send(answer.status, answer.body, answer.headers, half=half)
        self.finish()
        if answer.outcome in ("dropped", "hang", "dropped_midway"):
            self.transport.close()
        elif self.buffer:
            asyncio.get_running_loop().call_soon(self.data_received, b"")

    def finish(self) -> None:
        assert self.entry is not None
        self.entry.finished = time.monotonic()
        self.entry = None
        if self.account is self.state.entries:
            self.state.in_flight -= 1

    def control(self, method: str, name: str, body: bytes) -> None:
        state = self.state
        try:
            if (method, name) == ("POST", "behaviour"):
                state.behave(state.behaviour.changed(json.loads(body)))
            elif (method, name) == ("POST", "reset"):
                state.reset()
            elif (method, name) == ("GET", "log"):
                self.send(200, json.dumps(state.log(), separators=(",", ":")).encode())
                return
            elif (method, name) == ("GET", "counters"):
                self.send(200, json.dumps(state.counters()).encode())
                return
            else:
                self.send(404, b'{"error": "no such control"}')
                return
        except (ValueError, TypeError) as error:
            self.send(400, json.dumps({"error": str(error)}).encode())
            return
        self.send(200, json.dumps(asdict(state.behaviour)).encode())

    def send(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        half: bool = False,
    ) -> None:
        lines = f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: application/json\r\n"
        lines += f"content-length: {len(body)}\r\n"
        more = {**self.state.behaviour.headers, **(headers or {})}
        for name, value in more.items():
            lines += f"{name}: {value}\r\n"
        if half:
            body = body[: len(body) // 2]
        self.transport.write(lines.encode("latin-1") + b"\r\n" + body)


def key_of(head: bytes) -> str | None:
    """The key in a request's Authorization header."""
    found = KEY.search(head)
    return found[1].decode("latin-1").strip() if found else None


async def serve(behaviour: Behaviour, port: int, until: asyncio.Event) -> None:
    """Serve on the loopback interface and print the URL when ready.

    Args:
        behaviour: What to begin with.
        port: 0 takes a free one.
        until: Ends it.
    """
    state = State(behaviour)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(state), "127.0.0.1", port, backlog=4096, reuse_address=True
    )
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await until.wait()
    server.close()
