"""Server of the live page.

| request | answer |
|---|---|
| `GET /` | the page, without the report |
| `GET /api/view` | state of the study, counts, resources |
| `GET /api/trials` (`query`, `limit`) | list of trials |
| `GET /api/report` (`version`) | the report as HTML; 204 if there is no newer one |
| `GET /api/explorer` | data of all trials, of the same drawing |
| `GET /api/log` (`trial`) | log and traceback of a trial |
| `POST /api/stop` (`trial`, or nothing for the study) | name of the request |

A thread reads the study and draws the report while somebody looks at the page; every request is
answered from the last reading.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import jinja2
from aiohttp import web

from modicum.errors import InputError
from modicum.monitoring.relay import WATCHED_SECONDS
from modicum.monitoring.run_reader import RunReader
from modicum.report.rendering import finite, render_report_body, templates
from modicum.web_guard import (
    LOOPBACK,
    Handler,
    error_response,
    json_body,
    new_token,
    serving,
    token_middleware,
)

if TYPE_CHECKING:
    from modicum.monitoring.study_actor import RemoteStudy

    StudySource = RunReader | RemoteStudy

_READ_SECONDS = 1.0
_DRAW_SECONDS = 5.0
# Pause after a drawing, as a multiple of its time: drawing takes a fifth of a processor at most.
_DRAW_PAUSE = 4
_MOST_LISTED = 500
_PAGE = templates(Path(__file__).parent).get_template("live.html.j2")


class Pages(Protocol):
    """Something to serve: the live page of a study, or the index of a folder of runs."""

    def application(self, token: str, *, loopback: bool = True) -> web.Application:
        """Make the web application; every request has to carry the token."""


class Dashboard:
    """Web application of the live page of a study."""

    def __init__(self, source: StudySource, title: str) -> None:
        self._source, self._title = source, title
        self._report, self._explorer, self._drawn_version = "", "{}", -1
        self._drawn, self._took = float("-inf"), 0.0
        self._asked = time.monotonic()
        self._trouble: str | None = None
        # The source is not thread-safe.
        self._reading = asyncio.Lock()

    def application(self, token: str, *, loopback: bool = True) -> web.Application:
        """Make the web application; every request has to carry the token."""
        application = web.Application(middlewares=[token_middleware(token, loopback=loopback)])
        routes = self.handlers().items()
        application.add_routes([web.route(*where, handler) for where, handler in routes])
        application.cleanup_ctx.append(self._follow)
        return application

    def handlers(self) -> dict[tuple[str, str], Handler]:
        """Handler of each request, by method and path."""
        return {
            ("GET", "/"): self._page,
            ("GET", "/api/view"): self._view,
            ("GET", "/api/trials"): self._trials,
            ("GET", "/api/report"): self._report_html,
            ("GET", "/api/explorer"): self._explorer_data,
            ("GET", "/api/log"): self._log,
            ("POST", "/api/stop"): self._stop,
        }

    async def _follow(self, application: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self.keep_reading())
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def keep_reading(self) -> None:
        """Read the study and draw its report again and again, while somebody looks."""
        while True:
            if time.monotonic() - self._asked < WATCHED_SECONDS:
                try:
                    async with self._reading:
                        await asyncio.to_thread(self._read_and_draw)
                    self._trouble = None
                except (OSError, InputError) as error:
                    self._trouble = str(error)
                except Exception as error:
                    # Otherwise the page would stand still without an explanation.
                    trouble = f"the study cannot be shown ({type(error).__name__}: {error})"
                    if trouble != self._trouble:
                        traceback.print_exc()
                    self._trouble = trouble
            await asyncio.sleep(_READ_SECONDS)

    def _read_and_draw(self) -> None:
        self._source.refresh()
        pause = max(_DRAW_SECONDS, _DRAW_PAUSE * self._took)
        if self._source.version == self._drawn_version or time.monotonic() - self._drawn < pause:
            return
        started, version = time.monotonic(), self._source.version
        document = self._source.document()
        if document is not None:
            self._report = render_report_body(document)
            self._explorer = json.dumps(finite(document["explorer"]))
            self._drawn_version = version
        self._drawn = time.monotonic()
        self._took = self._drawn - started

    async def _page(self, request: web.Request) -> web.Response:
        self._asked = time.monotonic()
        return page_response(_PAGE, title=self._title)

    async def _view(self, request: web.Request) -> web.Response:
        self._asked = time.monotonic()
        view = self._source.view()
        trouble = self._trouble or view.get("trouble")
        return json_response({**view, "drawn": self._drawn_version, "trouble": trouble})

    async def _trials(self, request: web.Request) -> web.Response:
        given = request.query.get("limit", "100")
        limit = int(given) if given.isdecimal() and len(given) < 10 else 0
        if not 1 <= limit <= _MOST_LISTED:
            return error_response(400, f"limit: must be 1 to {_MOST_LISTED}")
        return json_response(self._source.trials(request.query.get("query", "")[:200], limit))

    async def _report_html(self, request: web.Request) -> web.Response:
        if request.query.get("version") == str(self._drawn_version) or not self._report:
            return web.Response(status=204)
        return web.Response(
            text=self._report,
            content_type="text/html",
            headers={"X-Modicum-Version": str(self._drawn_version)},
        )

    async def _explorer_data(self, request: web.Request) -> web.Response:
        return web.Response(text=self._explorer, content_type="application/json")

    async def _log(self, request: web.Request) -> web.Response:
        try:
            text = await asyncio.to_thread(self._source.log, request.query.get("trial", ""))
        except InputError as error:
            return error_response(404, str(error))
        return web.Response(text=text, content_type="text/plain")

    async def _stop(self, request: web.Request) -> web.Response:
        body = await json_body(request)
        trial = body.get("trial")
        if body.keys() - {"trial"} or not (trial is None or isinstance(trial, str)):
            return error_response(400, "expected {'trial': a trial's name} or {}")
        try:
            async with self._reading:
                name = await asyncio.to_thread(self._source.stop, trial)
        except InputError as error:
            return error_response(409, str(error))
        return web.json_response({"asked": name})


def page_response(template: jinja2.Template, **values: str) -> web.Response:
    """Make a page whose content policy runs the page's own scripts alone."""
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return web.Response(
        text=template.render(nonce=nonce, **values),
        content_type="text/html",
        headers={"Content-Security-Policy": policy},
    )


def json_response(data: Any) -> web.Response:
    """Make an answer of plain data, in which numbers that JSON lacks are None."""
    return web.json_response(finite(data))


async def serve(pages: Pages, *, port: int, host: str, on_start: Callable[[str], object]) -> None:
    """Serve pages until the task is cancelled, on a free port if `port` is 0.

    The function `on_start` is called with the page's address once the server answers.

    Raises:
        InputError: The port is taken or not allowed.
    """
    token = new_token()
    application = pages.application(token, loopback=host == LOOPBACK)
    async with serving(application, token, port, host) as address:
        on_start(address)
        await asyncio.Event().wait()
