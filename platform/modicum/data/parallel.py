"""Applying a function to many rows, in this process or through Ray Data."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from modicum.errors import InputError
from modicum.library_logging import quiet_loggers
from modicum.ray_support.connection import connected

Result = TypeVar("Result")

_LARGEST_CHUNK = 1000
_CHUNKS_PER_WORKER = 4  # Small chunks balance the load where slow rows stand together.


def map_chunks(
    function: Callable[[int, list[Any]], Result], rows: Sequence[Any], workers: int = 0
) -> list[Result]:
    """Apply a function to consecutive chunks of rows, and return the results in order.

    Rows are sent pickled, not as columns of a table, so a worker gets the same values as this
    process would: no missing keys are filled in, and no integer becomes a float.

    Args:
        function: Function of the number of a chunk's first row and of the chunk. With workers,
            cloudpickle must be able to pickle the function (closures are fine) and its results.
        rows: Picklable values.
        workers: Number of concurrent Ray tasks; 0 calls the function once, on all rows, in this
            process. The tasks run on the Ray cluster to which the program is connected, else on a
            private one for the length of the call.

    Returns:
        The function's result for each chunk, in the order of the chunks.

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

    def apply(batch: Any) -> Any:
        pairs = zip(batch["start"], batch["rows"], strict=True)
        results = [_dump(function(int(start), pickle.loads(rows))) for start, rows in pairs]
        return {"start": batch["start"], "result": results}

    tasks = ray.data.TaskPoolStrategy(size=workers)
    with connected(cpus=workers), quiet_loggers("ray.data"):
        context = ray.data.DataContext.get_current().copy()
        context.enable_progress_bars = False
        with ray.data.DataContext.current(context):
            dataset = ray.data.from_items(chunks, override_num_blocks=len(chunks))
            mapped = dataset.map_batches(apply, batch_format="numpy", compute=tasks)
            rows: list[dict[str, Any]] = mapped.take_all()
            return rows


def _dump(value: Any) -> bytes:
    from ray import cloudpickle

    pickled: bytes = cloudpickle.dumps(value)  # type: ignore[no-untyped-call]
    return pickled
