"""Web applications for one person: on the loopback interface, behind a random token.

The server refuses requests without the token, requests from another site's page, and requests for
another host name. So no other page in the browser can read or answer what is shown.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from modicum.errors import InputError

LOOPBACK = "127.0.0.1"
TOKEN_HEADER = "X-Modicum-Token"
_OWN_NAMES = {LOOPBACK, "localhost", "::1"}
_SHUTDOWN_SECONDS = 2.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def new_token() -> str:
    """Make a token that nobody can guess."""
    return secrets.token_urlsafe(24)


def token_middleware(token: str, *, loopback: bool = True) -> Any:
    """Make middleware that refuses requests without a token, and answers errors as JSON.

    The token stands in the address of the page (`/?token=...`), and in the header `X-Modicum-Token`
    of all other requests. With `loopback`, other host names than this machine's are refused.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        refusal = _refusal(request, token, loopback)
        if refusal is not None:
            response: web.StreamResponse = error_response(403, refusal)
        else:
            try:
                response = await handler(request)
            except web.HTTPException as error:
                response = error_response(error.status, error.reason)
        # The content may be confidential: no copy in the browser's cache, no token in a referrer.
        response.headers["Cache-Control"] = "no-store"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["X-Frame-Options"] = "DENY"
        return response

    return middleware


def _refusal(request: web.Request, token: str, loopback: bool) -> str | None:
    host = urlsplit(f"//{request.host}").hostname
    if loopback and host not in _OWN_NAMES:
        return "this page is served to this machine alone"
    if request.headers.get("Origin", f"http://{request.host}") != f"http://{request.host}":
        return "another site's page may not call this one"
    # The browser opens the page by its address; the page's script makes all other requests.
    given = request.query.get("token") if request.path == "/" else request.headers.get(TOKEN_HEADER)
    if not secrets.compare_digest((given or "").encode("utf-8", "replace"), token.encode()):
        return "open the page at the address that the terminal shows, with its token"
    return None


def error_response(status: int, message: str) -> web.Response:
    """Make an error response in JSON."""
    return web.json_response({"error": message}, status=status)


async def json_body(request: web.Request) -> dict[str, Any]:
    """Read the body of a request.

    Raises:
        HTTPBadRequest: The body is no JSON object.
    """
    try:
        body = await request.json() if request.content_type == "application/json" else None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(reason="expected a JSON object")
    return body


@asynccontextmanager
async def serving(
    application: web.Application, token: str, port: int, host: str = LOOPBACK
) -> AsyncIterator[str]:
    """Serve an application with `token_middleware`; yield the page's address, with the token.

    Raises:
        InputError: The port or the interface is taken or not allowed.
    """
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except (OSError, OverflowError) as error:
            raise InputError(f"--port: {port} cannot be used ({error})") from error
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{runner.addresses[0][1]}/?token={token}"
    finally:
        await runner.cleanup()
