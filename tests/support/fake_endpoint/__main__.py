"""Run the endpoint: python -m fake_endpoint [--port 0] [--behaviour '{"delay": 0.1}']."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys

from fake_endpoint.behaviour import Behaviour
from fake_endpoint.server import serve


async def run(behaviour: Behaviour, port: int, *, parent: bool) -> None:
    """Serve until stdin is closed, if a parent process holds its other end, or else for ever."""
    over = asyncio.Event()
    if parent:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        task = asyncio.ensure_future(reader.read())
        task.add_done_callback(lambda _: over.set())
    await serve(behaviour, port, over)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--behaviour", default="{}", help="fields of Behaviour, as JSON")
    parser.add_argument("--with-parent", action="store_true", help="end when stdin ends")
    arguments = parser.parse_args()
    behaviour = Behaviour().changed(json.loads(arguments.behaviour))
    # A long log would make each full collection slow, and nothing here is cyclic.
    gc.disable()
    asyncio.run(run(behaviour, arguments.port, parent=arguments.with_parent))


if __name__ == "__main__":
    main()
