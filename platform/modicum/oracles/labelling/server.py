"""One page in the browser, served to this machine alone.

The page's address carries a random token. Requests without it are refused, and so are requests
that another site's page makes or that reach the server under another host's name, so that
nothing else in the browser can read pairs or answer them.

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
import secrets
import sqlite3
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from modicum.errors import InputError
from modicum.oracles.labelling.session import Session
from modicum.oracles.protocol import Letter

HOST = "127.0.0.1"
TOKEN_HEADER = "X-Modicum-Token"
_OWN_NAMES = {HOST, "localhost"}
_PAGE = files("modicum.oracles.labelling") / "page.html"
_SHUTDOWN_SECONDS = 2.0

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def serve(session: Session, port: int, on_start: Callable[[str], None]) -> None:
    """Serve the page until it is finished there, or the task is cancelled.

    Args:
        session: What to ask.
        port: Port of the loopback interface; 0 for one that is free.
        on_start: Called with the page's address once it answers.

    Raises:
        InputError: The port is taken or not allowed.
    """
    token = secrets.token_urlsafe(24)
    finished = asyncio.Event()
    runner = web.AppRunner(
        labelling_application(session, token, finished),
        access_log=None,
        shutdown_timeout=_SHUTDOWN_SECONDS,
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, HOST, port).start()
        except (OSError, OverflowError) as error:
            raise InputError(f"--port: {port} cannot be used ({error})") from error
        on_start(f"http://{HOST}:{runner.addresses[0][1]}/?token={token}")
        await finished.wait()
    finally:
        await runner.cleanup()


def labelling_application(session: Session, token: str, finished: asyncio.Event) -> web.Application:
    """The page and what it calls.

    Args:
        session: What to ask; used by this application's event loop alone.
        token: What every request has to carry.
        finished: Set when the human says so.
    """
    routes = _Routes(session, finished)
    application = web.Application(middlewares=[_guard(token)])
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
    return application


def _guard(token: str) -> Any:
    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        refusal = _refusal(request, token)
        if refusal is not None:
            response: web.StreamResponse = _error(403, refusal)
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = _error(error.status, error.reason)
        # Pairs may be confidential: no copy in the browser's cache, no token in a referrer.
        response.headers["Cache-Control"] = "no-store"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return guard


def _refusal(request: web.Request, token: str) -> str | None:
    host = urlsplit(f"//{request.host}").hostname
    if host not in _OWN_NAMES:
        return "this page is served to this machine alone"
    if request.headers.get("Origin", f"http://{request.host}") != f"http://{request.host}":
        return "another site's page may not call this one"
    # The page itself is opened by its address; everything else comes from the page's script.
    given = request.query.get("token") if request.path == "/" else request.headers.get(TOKEN_HEADER)
    if not secrets.compare_digest((given or "").encode("utf-8", "replace"), token.encode()):
        return "open the page at the address that the terminal shows, with its token"
    return None


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"error": message}, status=status)


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
        body = await _body(request)
        letter, rationale = _letter(body.get("letter")), body.get("rationale")
        if letter is None or not isinstance(rationale, str | None):
            return _error(400, "letter must be A or B, rationale a text or nothing")
        return self._step(body, lambda key: self._session.judge(key, letter, rationale))

    async def skip(self, request: web.Request) -> web.Response:
        return self._step(await _body(request), self._session.skip)

    def _step(self, body: dict[str, Any], step: Callable[[str], bool]) -> web.Response:
        # Nothing is awaited in here, so that of two requests about one question one comes first.
        try:
            changed = step(str(body.get("key")))
        except KeyError:
            return _error(404, "no such question; reload the page")
        except sqlite3.Error as error:
            return _error(500, f"the answer could not be kept ({error}); it is still open")
        return self._state() if changed else self._state(409, "it was answered before")

    async def undo(self, request: web.Request) -> web.Response:
        body = await _body(request)
        last = self._session.last
        if last is None or last.key != body.get("key"):
            return self._state(409, "there is nothing to take back, or another tab was faster")
        try:
            undone = self._session.undo()
        except sqlite3.Error as error:
            return _error(500, f"the answer could not be taken back ({error}); it still stands")
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


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json() if request.content_type == "application/json" else None
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(reason="expected a JSON object")
    return body


def _letter(value: object) -> Letter | None:
    return "A" if value == "A" else "B" if value == "B" else None


def _content_policy(page: str) -> str:
    """Allow the page's own script and style by their digests, and no others from anywhere."""

    def source(tag: str) -> str:
        [text] = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        sha = hashlib.sha256(text.encode()).digest()
        return f"'sha256-{base64.b64encode(sha).decode()}'"

    return (
        f"default-src 'none'; script-src {source('script')}; style-src {source('style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
