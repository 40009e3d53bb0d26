"""Server of the runs in a folder: an index, comparisons, and the live page of each run.

| request | answer |
|---|---|
| `GET /` | the index |
| `GET /api/runs` | what the index says of each run |
| `GET /api/compare` (`name`, repeated) | tables that compare runs |
| any request of a live page, with `run` | the answer of that run's page |
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from modicum.errors import InputError
from modicum.monitoring.dashboard.server import Dashboard, json_response, page_response
from modicum.monitoring.run_index import RunIndex
from modicum.monitoring.run_reader import RunReader
from modicum.report.rendering import templates
from modicum.web_guard import error_response, token_middleware

_PAGE = templates(Path(__file__).parent).get_template("index.html.j2")


class IndexPages:
    """Web application of the runs in a folder."""

    def __init__(self, index: RunIndex) -> None:
        self._index = index
        self._pages: dict[str, Dashboard] = {}
        self._tasks: list[asyncio.Task[None]] = []
        # The index is not thread-safe.
        self._reading = asyncio.Lock()

    def application(self, token: str, *, loopback: bool = True) -> web.Application:
        """Make the web application; every request has to carry the token."""
        application = web.Application(middlewares=[token_middleware(token, loopback=loopback)])
        application.router.add_route("*", "/{path:.*}", self._answer)
        application.cleanup_ctx.append(self._ended)
        return application

    async def _ended(self, application: web.Application) -> AsyncIterator[None]:
        yield
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        try:
            if "run" in request.query:
                page = await self._page_of(request.query["run"])
                handler = page.handlers().get((request.method, request.path))
            else:
                own = {"/": self._page, "/api/runs": self._runs, "/api/compare": self._compare}
                handler = own.get(request.path) if request.method == "GET" else None
            if handler is None:
                raise web.HTTPNotFound
            return await handler(request)
        except InputError as error:
            return error_response(404, str(error))

    async def _page_of(self, name: str) -> Dashboard:
        async with self._reading:
            if name not in self._pages:
                location = await asyncio.to_thread(self._index.location, name)
                reader = await asyncio.to_thread(RunReader, location)
                page = self._pages[name] = Dashboard(reader, reader.title)
                self._tasks.append(asyncio.create_task(page.keep_reading()))
            return self._pages[name]

    async def _page(self, request: web.Request) -> web.StreamResponse:
        return page_response(_PAGE, title=f"Runs in {self._index.folder.uri}")

    async def _runs(self, request: web.Request) -> web.StreamResponse:
        async with self._reading:
            cards = await asyncio.to_thread(self._index.cards)
        return json_response({"now": time.time(), "runs": cards})

    async def _compare(self, request: web.Request) -> web.StreamResponse:
        names = request.query.getall("name", [])
        return json_response(await asyncio.to_thread(self._index.compare, names))
