"""One function over many rows, in this process or through Ray Data."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from modicum.errors import InputError

Result = TypeVar("Result")

_LARGEST_CHUNK = 1000
_CHUNKS_PER_WORKER = 4  # slow rows come together now and then; small chunks even that out


def map_chunks(
    function: Callable[[int, list[Any]], Result], rows: Sequence[Any], workers: int = 0
) -> list[Result]:
    """Apply a function to consecutive chunks of rows; the results keep the rows' order.

    The rows travel pickled and not as columns of a table, so a worker sees the very same
    values as this process would: no missing keys filled in, no whole number made a float.

    Args:
        function: Takes the number of a chunk's first row and the chunk. With workers, it and
            what it returns must be picklable by cloudpickle (closures are).
        rows: Any picklable values.
        workers: Ray tasks at a time; 0 calls the function once, on all rows, in this process.
            Uses the Ray cluster that the program is connected to, else a private one for the
            length of the call.

    Returns:
        What the function returned for each chunk, by the number of the first row.

    Raises:
        InputError: `workers` is negative.
    """
    if workers < 0:
        raise InputError(f"workers: must be 0 (in this process) or more, got {workers}")
    if workers == 0 or not rows:
        return [function(0, list(rows))]
    size = max(1, min(_LARGEST_CHUNK, -(-len(rows) // (workers * _CHUNKS_PER_WORKER))))
    chunks = [
        {"start": start, "rows": _dump(list(rows[start : start + size]))}
        for start in range(0, len(rows), size)
    ]
    results = sorted(_through_ray(function, chunks, workers), key=lambda row: row["start"])
    return [pickle.loads(row["result"]) for row in results]


def _through_ray(
    function: Callable[[int, list[Any]], Any], chunks: list[dict[str, Any]], workers: int
) -> list[dict[str, Any]]:
    import ray.data

    from modicum.ray_support.connection import connected

    def apply(batch: Any) -> Any:
        pairs = zip(batch["start"], batch["rows"], strict=True)
        results = [_dump(function(int(start), pickle.loads(rows))) for start, rows in pairs]
        return {"start": batch["start"], "result": results}

    tasks = ray.data.TaskPoolStrategy(size=workers)
    with connected(cpus=workers), _quiet():
        dataset = ray.data.from_items(chunks, override_num_blocks=len(chunks))
        mapped = dataset.map_batches(apply, batch_format="numpy", compute=tasks)
        rows: list[dict[str, Any]] = mapped.take_all()
        return rows


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data without progress bars and without a log of its start and end."""
    import ray.data

    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    log = logging.getLogger("ray.data")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with ray.data.DataContext.current(context):
            yield
    finally:
        log.setLevel(level)


def _dump(value: Any) -> bytes:
    from ray import cloudpickle

    pickled: bytes = cloudpickle.dumps(value)  # type: ignore[no-untyped-call]
    return pickled
