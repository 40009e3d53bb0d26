"""Programs that a test starts."""

from __future__ import annotations

import os
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
