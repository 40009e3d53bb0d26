"""Programs that a test starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def python_program(*arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run Python with arguments, able to import the tests' helpers; end it with the context."""
    environment = options.pop("env", os.environ)
    search = [str(Path(__file__).parent), environment.get("PYTHONPATH", "")]
    started = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        env={**environment, "PYTHONPATH": os.pathsep.join(search)},
        text=True,
        **options,
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait(30)


@contextmanager
def served_program(*arguments: object) -> Iterator[str]:
    """Run a command that serves a page, and yield the page's address; end it as by Ctrl-C."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with python_program(*arguments, **pipes) as server:
        yield server.stdout.readline().removeprefix("dashboard: ").strip()
        server.send_signal(signal.SIGINT)
        _, said = server.communicate(timeout=30)
        assert server.returncode == 0
        assert "Traceback" not in said
