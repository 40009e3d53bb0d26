"""Pipelines of Ray Data with pools of actors, beside the workers that train."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from modicum.errors import InputError
from modicum.experiment.fit import require_fit
from modicum.experiment.resources import Resources
from modicum.library_logging import quiet_loggers
from modicum.ray_support.connection import ensure_connected, node_resources

if TYPE_CHECKING:
    import pyarrow as pa


def require_room(resources: Resources) -> None:
    """Refuse what the cluster cannot hold, before anything starts; connects to Ray.

    Args:
        resources: What a trial needs, its pools included.

    Raises:
        InputError: It does not fit.
    """
    ensure_connected()
    require_fit(node_resources(), resources)


def run_pipeline(
    tables: Sequence[pa.Table],
    stages: Callable[[Any], Any],
    *,
    start_timeout: float,
    too_few: str,
) -> list[dict[str, Any]]:
    """Rows that a pipeline makes of some tables, in any order.

    Its actors start with it, all before the first row is worked on, and end with it. Ray Data
    starts one again whose process dies, and gives its rows to the others meanwhile. They are placed
    on what the cluster has free, outside a trial's own reservation: count them in
    `Resources.nested`.

    Args:
        tables: Rows; each table is a block of its own.
        stages: Makes a `ray.data.Dataset` with the stages of one with these rows.
        start_timeout: Seconds in which every actor must have started.
        too_few: What is said where one has not: a sentence that names the field.

    Raises:
        InputError: Not all actors have started, or a stage raised one.
    """
    import ray.data
    from ray.exceptions import GetTimeoutError

    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    # At least a second: Ray Data takes 0 for no waiting at all.
    context.wait_for_min_actors_s = max(1, round(start_timeout))
    # Ray Data logs every error before it raises it.
    with ray.data.DataContext.current(context), quiet_loggers("ray.data", level=logging.CRITICAL):
        try:
            # `from_arrow` would ask for tasks of one CPU each, which a full cluster never runs.
            rows: list[dict[str, Any]] = stages(ray.data.from_blocks(list(tables))).take_all()
            return rows
        except GetTimeoutError:
            # Not raised from here: its traceback would hold the pipeline, and that the actors.
            pass
        except InputError as error:
            # Ray's own class of it holds the traceback in its text and does not travel further.
            raise InputError(str(getattr(error, "cause", error))) from error
    # Ray Data forgets the actors of a pool that did not start whole, and they end when the last
    # reference to them goes; the pipeline's objects refer to each other.
    gc.collect()
    raise InputError(too_few)
