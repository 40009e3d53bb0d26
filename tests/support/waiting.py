"""Waiting for conditions that other processes make true."""

from __future__ import annotations

import time
from collections.abc import Callable


def comes_true(condition: Callable[[], bool], seconds: float = 200.0) -> bool:
    """Tell whether a condition comes true within the given number of seconds."""
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.1)
    return True


def cpus_come_back(seconds: float = 200.0) -> bool:
    """Tell whether both CPUs of the tests' Ray come free within the given number of seconds."""
    import ray

    return comes_true(lambda: ray.available_resources().get("CPU", 0) == 2, seconds)
