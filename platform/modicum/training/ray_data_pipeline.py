"""Pipelines of Ray Data with actor pools, beside the workers that train."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import ray.data
from ray.exceptions import GetTimeoutError

from modicum.errors import InputError
from modicum.library_logging import quiet_loggers


def run_pipeline(
    tables: Sequence[pa.Table],
    stages: Callable[[Any], Any],
    *,
    start_timeout: float,
    too_few: str,
) -> list[dict[str, Any]]:
    """Run a pipeline on some tables and return its rows, in any order.

    All actors of the pipeline start before the first row is processed, and end with the pipeline.
    Ray Data restarts an actor whose process dies, and gives its rows to the others meanwhile.
    Actors are placed on free resources of the cluster, outside the trial's reservation: count them
    in `Resources.nested`.

    Args:
        tables: Tables of rows; each table is one block.
        stages: Function that adds the pipeline's stages to a `ray.data.Dataset`.
        start_timeout: Seconds within which every actor must have started.
        too_few: Error message if an actor has not started: a sentence that names the field.

    Raises:
        InputError: Some actor did not start, or a stage raised an `InputError`.
    """
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    # At least one second: with 0, Ray Data does not wait at all.
    context.wait_for_min_actors_s = max(1, round(start_timeout))
    # Ray Data logs every error before it raises it.
    with ray.data.DataContext.current(context), quiet_loggers("ray.data", level=logging.CRITICAL):
        try:
            # `from_arrow` would start tasks of one CPU each, which a full cluster never runs.
            rows: list[dict[str, Any]] = stages(ray.data.from_blocks(list(tables))).take_all()
            return rows
        except GetTimeoutError:
            # Raised from here, the error's traceback would keep the pipeline and its actors alive.
            pass
        except InputError as error:
            # Ray's subclass of it has the traceback in its text and cannot be pickled again.
            raise InputError(str(getattr(error, "cause", error))) from error
    # Ray Data forgets the actors of a pool that did not start completely. They end when the last
    # reference goes, and the pipeline's objects refer to each other.
    gc.collect()
    raise InputError(too_few)
