"""The server of the labelling page, for this machine alone.

The page's address carries a random token. The server refuses requests without the token, requests
from another site's page, and requests under another host name, so nothing else in the browser can
read pairs or answer them.

| request | answers with |
|---|---|
| `GET /` | the page |
| `GET /api/state` | the state: the question to be asked, and the progress |
| `POST /api/judge` (`key`, `letter`, `rationale`) | the state; 409 if it was answered before |
| `POST /api/skip` (`key`) | the state; 409 if it was answered before |
| `POST /api/undo` (`key` of the step to take back) | the state; 409 if another is the last |
| `POST /api/finish` | the state; then the server ends |
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import sqlite3
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from aiohttp import web

from modicum.oracles.labelling.session import Session
from modicum.oracles.protocol import Letter
from modicum.web_guard import error_response, json_body, new_token, serving, token_middleware

_PAGE = files("modicum.oracles.labelling") / "page.html"


async def serve(session: Session, port: int, on_start: Callable[[str], None]) -> None:
    """Serve the page until the human finishes there, or the task is cancelled.

    `on_start` is called with the address once the server answers. Port 0 is a free one.

    Raises:
        InputError: The port is taken or not allowed.
    """
    token = new_token()
    finished = asyncio.Event()
    routes = _Routes(session, finished)
    application = web.Application(middlewares=[token_middleware(token)])
    application.add_routes(
        [
            web.get("/", routes.page),
            web.get("/api/state", routes.state),
            web.post("/api/judge", routes.judge),
            web.post("/api/skip", routes.skip),
            web.post("/api/undo", routes.undo),
            web.post("/api/finish", routes.finish),
        ]
    )
    async with serving(application, token, port) as address:
        on_start(address)
        await finished.wait()


class _Routes:
    def __init__(self, session: Session, finished: asyncio.Event) -> None:
        self._session = session
        self._finished = finished
        self._page = _PAGE.read_text(encoding="utf-8")
        self._policy = _content_policy(self._page)

    async def page(self, request: web.Request) -> web.Response:
        headers = {"Content-Security-Policy": self._policy}
        return web.Response(text=self._page, content_type="text/html", headers=headers)

    async def state(self, request: web.Request) -> web.Response:
        return self._state()

    async def judge(self, request: web.Request) -> web.Response:
        body = await json_body(request)
        letter, rationale = _letter(body.get("letter")), body.get("rationale")
        if letter is None or not isinstance(rationale, str | None):
            return error_response(400, "letter must be A or B, rationale must be a text or missing")
        return self._step(body, lambda key: self._session.judge(key, letter, rationale))

    async def skip(self, request: web.Request) -> web.Response:
        return self._step(await json_body(request), self._session.skip)

    def _step(self, body: dict[str, Any], step: Callable[[str], bool]) -> web.Response:
        # Nothing is awaited here, so of two requests about one question, one is first.
        try:
            changed = step(str(body.get("key")))
        except KeyError:
            return error_response(404, "no such question; reload the page")
        except sqlite3.Error as error:
            return error_response(500, f"the answer could not be saved ({error}); it is still open")
        return self._state() if changed else self._state(409, "it was answered before")

    async def undo(self, request: web.Request) -> web.Response:
        body = await json_body(request)
        last = self._session.last
        if last is None or last.key != body.get("key"):
            return self._state(409, "there is nothing to take back, or another tab was faster")
        try:
            undone = self._session.undo()
        except sqlite3.Error as error:
            return error_response(
                500, f"the answer could not be taken back ({error}); it still stands"
            )
        verdict = None if undone is None else undone.verdict
        return self._state(
            taken_back=None
            if verdict is None
            else {"letter": verdict.letter, "rationale": verdict.rationale}
        )

    async def finish(self, request: web.Request) -> web.Response:
        self._finished.set()
        return self._state()

    def _state(
        self, status: int = 200, error: str | None = None, taken_back: object = None
    ) -> web.Response:
        question = self._session.show()
        last = self._session.last
        progress = self._session.progress
        shown = None
        if question is not None:
            a, b = question.shown
            shown = {"key": question.key, "prompt": question.prompt, "A": a, "B": b}
        return web.json_response(
            {
                "question": shown,
                "wording": self._session.asking.wording,
                "name": self._session.asking.name,
                "answered": progress.answered,
                "total": progress.total,
                "last": None if last is None else last.key,
                "taken_back": taken_back,
                "error": error,
            },
            status=status,
        )


def _letter(value: object) -> Letter | None:
    return "A" if value == "A" else "B" if value == "B" else None


def _content_policy(page: str) -> str:
    """A content policy that allows only the page's own script and style, by their digests."""

    def source(tag: str) -> str:
        [text] = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        sha = hashlib.sha256(text.encode()).digest()
        return f"'sha256-{base64.b64encode(sha).decode()}'"

    return (
        f"default-src 'none'; script-src {source('script')}; style-src {source('style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
