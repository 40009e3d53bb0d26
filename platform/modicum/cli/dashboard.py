"""`modicum dashboard`."""

from __future__ import annotations

import asyncio
import contextlib
import sys

from modicum.errors import InputError


def show_dashboard(
    folder: str | None, address: str | None, study: str | None, host: str, port: int
) -> None:
    """Serve the live page of a run folder or of a study on a cluster until Ctrl-C.

    Args:
        folder: Run folder or URI.
        address: `host:port` of a cluster, instead of a folder.
        study: Name of one of the cluster's studies, where several run.
        host: Interface to listen on.
        port: 0 for one that is free.

    Raises:
        InputError: There is no such study, or the port cannot be used.
    """
    if (folder is None) == (address is None):
        raise InputError("dashboard: give a run folder or --address, one of them")
    if folder is not None:
        from modicum.monitoring.dashboard.run_reader import RunReader

        reader = RunReader(folder)
        _serve(reader, reader.title, host, port)
        return
    from modicum.monitoring.study_actor import running_studies
    from modicum.ray_support.connection import connected

    with connected(address):
        found = running_studies()
        chosen = [each for each in found if study is None or each.about["name"] == study]
        names = ", ".join(f"{each.about['name']} ({each.about['where']})" for each in found)
        if not chosen:
            raise InputError(
                f"--study: no such study runs on the cluster (there are: {names or 'none'})"
            )
        if len(chosen) > 1:
            raise InputError(f"--study: several studies run on the cluster, name one of {names}")
        _serve(chosen[0], chosen[0].about["name"], host, port)


def _serve(source: object, title: str, host: str, port: int) -> None:
    from typing import Any, cast

    from modicum.monitoring.dashboard.server import serve

    def say(address: str) -> None:
        print(f"dashboard: {address}", flush=True)
        print("Ctrl-C ends it; the study runs on.", file=sys.stderr)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(cast(Any, source), title, port=port, host=host, on_start=say))
