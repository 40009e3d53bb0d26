"""The command `modicum dashboard`."""

from __future__ import annotations

import asyncio
import contextlib
import sys

from modicum.errors import InputError
from modicum.monitoring.dashboard.server import StudySource, serve
from modicum.monitoring.run_reader import RunReader


def show_dashboard(
    folder: str | None, address: str | None, study: str | None, host: str, port: int
) -> None:
    """Serve the live page of a study until Ctrl-C.

    Args:
        folder: Path or URI of the run folder.
        address: Address of a Ray cluster (`host:port`), in place of a folder.
        study: Name of a study on the cluster; needed if several run there.
        host: Interface to listen on.
        port: Port to listen on; 0 for a free one.

    Raises:
        InputError: There is no such study, or the port cannot be used.
    """
    if (folder is None) == (address is None):
        raise InputError("dashboard: give a run folder or --address, one of them")
    if folder is not None:
        reader = RunReader(folder)
        _serve(reader, reader.title, host, port)
        return
    # The border to Ray, which a run folder does not need.
    from modicum.monitoring.remote_study import find_study
    from modicum.ray_support.connection import connected

    with connected(address):
        found = find_study(study)
        _serve(found, found.about["name"], host, port)


def _serve(source: StudySource, title: str, host: str, port: int) -> None:
    def say(address: str) -> None:
        print(f"dashboard: {address}", flush=True)
        print("Ctrl-C ends it; the study runs on.", file=sys.stderr)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(source, title, port=port, host=host, on_start=say))
