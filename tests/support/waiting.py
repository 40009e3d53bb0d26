"""Waiting for what comes true by itself."""

from __future__ import annotations

import time
from collections.abc import Callable


def comes_true(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether a condition holds within so many seconds."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.1)
    return True


def cpus_come_back(seconds: float = 60.0) -> bool:
    """Whether the two CPUs of the tests' Ray are free within so many seconds."""
    import ray

    return comes_true(lambda: ray.available_resources().get("CPU", 0) == 2, seconds)
