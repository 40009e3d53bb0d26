"""The command `modicum dashboard`."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from modicum.errors import InputError

if TYPE_CHECKING:
    from modicum.monitoring.dashboard.server import Pages


def dashboard(
    folder: Annotated[
        str | None,
        typer.Argument(help="Run folder or URI, or a folder of runs.", show_default=False),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster (host:port) of a running study, in place of a folder."),
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Name of the study, if several run on the cluster.")
    ] = None,
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for a free one.", min=0)] = 0,
) -> None:
    """Serve a live page of a study: its report so far, and its trials, which it can stop.

    Of a folder of runs, serve an index that finds and compares them.
    """
    if (folder is None) == (address is None):
        raise InputError("dashboard: give either a run folder or --address")
    with contextlib.suppress(KeyboardInterrupt):
        if folder is not None:
            _serve(_pages(folder), host, port)
            return
        from modicum.monitoring.dashboard.server import Dashboard
        from modicum.monitoring.study_actor import find_study
        from modicum.ray_support.connection import connected

        with connected(address):
            found = find_study(study)
            _serve(Dashboard(found, found.about["name"]), host, port)


def _pages(folder: str) -> Pages:
    """Make the page of a run, or the index of a folder of runs; wait until there is either."""
    from modicum.monitoring.dashboard.index_server import IndexPages
    from modicum.monitoring.dashboard.server import Dashboard
    from modicum.monitoring.run_index import RunIndex
    from modicum.monitoring.run_reader import RunReader
    from modicum.run_folder.plan_file import PLAN
    from modicum.storage import StorageFolder

    storage, index = StorageFolder(folder), RunIndex(folder)
    told = False
    while not storage.exists(PLAN):
        if index.names():
            return IndexPages(index)
        if not told:
            print(f"{folder}: no run here yet; waiting for one (Ctrl-C ends this)", file=sys.stderr)
            told = True
        time.sleep(1)
    reader = RunReader(folder)
    return Dashboard(reader, reader.title)


def _serve(pages: Pages, host: str, port: int) -> None:
    import asyncio

    from modicum.monitoring.dashboard.server import serve

    def say(address: str) -> None:
        print(f"dashboard: {address}", flush=True)
        print("Ctrl-C ends it; the study runs on.", file=sys.stderr)

    asyncio.run(serve(pages, port=port, host=host, on_start=say))
