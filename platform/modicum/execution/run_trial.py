"""One trial from its plan to its messages, the same under every runner.

Seeds, threads, logs and failures are handled here, so that a trial gives the same numbers
in-process and inside a Ray actor.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import socket
import sys
import time
import traceback
from collections.abc import Generator, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modicum.execution.messages import EndMessage, RecordMessage
from modicum.execution.process_state import ProcessState
from modicum.execution.scratch import empty_copied, scratch_folder
from modicum.execution.trial_output import TrialOutput
from modicum.experiment.experiment import Experiment
from modicum.experiment.metric import Record, Value
from modicum.experiment.resources import Resources
from modicum.experiment.trial import Trial
from modicum.planning.trial_plan import TrialPlan
from modicum.run_folder.outcomes import is_mean_of
from modicum.run_folder.trial_record import COLUMNS, check_value, records_before, write_note
from modicum.seeding import seeded

if TYPE_CHECKING:
    import numpy as np
    from threadpoolctl import ThreadpoolController


def run_trial(
    experiment: Experiment[Any],
    plan: TrialPlan,
    resources: Resources,
    *,
    checkpoint: Path | None = None,
    storage: str | None = None,
    log_file: Path | None = None,
) -> Generator[RecordMessage | EndMessage]:
    """Run a trial and yield its messages; the last one is an `EndMessage`.

    An exception of the experiment becomes a failed `EndMessage` with the traceback.
    `KeyboardInterrupt` and `SystemExit` leave this function.

    Args:
        experiment: The trial's experiment.
        plan: The trial.
        resources: Resources of the trial; torch and BLAS are pinned to its CPUs.
        checkpoint: Folder of a checkpoint of this trial to resume from.
        storage: The trial's place for state that outlives this process; see `Trial`.
        log_file: The trial's log, which is appended to; None puts its output into the messages.
    """
    with (
        contextlib.closing(TrialOutput(log_file)) as output,
        scratch_folder(plan.id) as scratch,
        _pinned_threads(experiment, resources),
        seeded(plan.seed, uses_torch=experiment.uses_torch),
    ):
        done = 0 if checkpoint is None else records_before(checkpoint)
        trial = Trial(
            plan.id, plan.seed, scratch, resources, checkpoint, done, storage, output.logger
        )
        started = time.perf_counter()
        spent = -math.inf
        before = ProcessState(experiment)
        records: Iterator[Record] = iter(())
        try:
            with output.capture():
                _require_planned_data(experiment.data_digests(plan.config), plan.digests)
                records = iter(experiment.run(plan.config, trial))
            for index in itertools.count(done):
                with output.capture():
                    record = next(records, None)
                    if record is None:
                        break
                    spent, metrics = _checked(experiment, record, spent)
                    outcomes = _checked_outcomes(experiment, record, metrics)
                if record.checkpoint is not None:
                    write_note(record.checkpoint, plan.id, index + 1)
                seconds = time.perf_counter() - started
                left = before.changed_globals()
                yield RecordMessage(
                    index,
                    spent,
                    metrics,
                    seconds,
                    log=output.take(),
                    left=left,
                    checkpoint=record.checkpoint,
                    outcomes=outcomes,
                )
                if record.checkpoint is not None:
                    empty_copied(record.checkpoint, scratch)
            if index == 0:
                raise RuntimeError(f"experiment {experiment.name!r} yielded no record")
            end = EndMessage("finished")
        except Exception as error:
            # A file name that is no text stands in an error as surrogates, which no file can hold.
            name, trace = (
                text.encode(errors="backslashreplace").decode()
                for text in (f"{type(error).__name__}: {error}", traceback.format_exc())
            )
            end = EndMessage("failed", error=name.splitlines()[0], traceback=trace)
        finally:
            _close(records, output)
            left = before.restore()
            if left:
                output.logger.warning(
                    "isolation: the trial left changed: %s. It was put back as far as possible; "
                    "on Ray no other trial gets this process",
                    ", ".join(left),
                )
        end.left, end.log = left, output.take()
        yield end


def _close(records: Iterator[Record], output: TrialOutput) -> None:
    """Let a trial that was stopped between two records clean up."""
    with output.capture():
        try:
            if isinstance(records, Generator):
                records.close()
        except Exception:
            output.logger.exception("the stopped trial raised an exception")


def _require_planned_data(here: Mapping[str, str], planned: Mapping[str, str]) -> None:
    """Refuse data other than those in the trial's identity: results would mix silently."""
    changed = sorted(role for role in {*here, *planned} if here.get(role) != planned.get(role))
    if changed:
        raise RuntimeError(
            f"the data on this machine ({socket.gethostname()}) are not those that the study was "
            f"planned with: {', '.join(changed)} differ"
        )


def _checked(
    experiment: Experiment[Any], record: Record, previous: float
) -> tuple[float, dict[str, Value]]:
    """A record's budget and metrics as plain Python values.

    Raises:
        ValueError: The budget is not a finite number or shrank, results cannot hold a metric's name
            or value, or a metric that is to be large or small is not finite.
        InputError: A metric was not declared.
    """
    budget = float(record.budget)
    if not math.isfinite(budget) or budget < 0:
        raise ValueError(f"a record's budget must be finite and not negative, got {budget}")
    if budget < previous:
        raise ValueError(f"the budget spent cannot shrink, got {budget} after {previous}")
    metrics: dict[str, Value] = {}
    for name, value in record.metrics.items():
        if name in COLUMNS or name.startswith("config/"):
            raise ValueError(f"the name {name!r} is taken; a metric needs another")
        goal = experiment.metric(name).goal
        # NumPy and torch scalars as Python's own.
        plain = getattr(value, "item", lambda value=value: value)()
        check_value(name, plain)
        if goal is not None and isinstance(plain, bool):
            plain = int(plain)
        if goal is not None and isinstance(plain, str):
            raise ValueError(f"metric {name!r} has a goal, so it must be a number, got {plain!r}")
        if goal is not None and isinstance(plain, float) and not math.isfinite(plain):
            raise ValueError(f"metric {name!r} is {plain}: the trial has diverged")
        metrics[name] = plain
    return budget, metrics


def _checked_outcomes(
    experiment: Experiment[Any], record: Record, metrics: Mapping[str, Value]
) -> dict[str, np.ndarray]:
    """A record's outcomes of test rows as compact arrays.

    Raises:
        ValueError: Outcomes of a metric that declares none, or whose mean is not its value.
    """
    if not record.outcomes:
        return {}
    import numpy as np

    found = {}
    for name, outcomes in record.outcomes.items():
        if name not in metrics or not experiment.metric(name).outcomes:
            raise ValueError(
                f"outcomes of {name!r}: the record needs its value, and the metric outcomes=True"
            )
        array = np.asarray(outcomes, dtype=np.float32)
        value = metrics[name]
        if array.ndim != 1 or not len(array) or not is_mean_of(array, value):
            raise ValueError(f"outcomes of {name!r}: their mean must be the value, {value}")
        found[name] = array.astype(bool) if np.isin(array, (0, 1)).all() else array
    return found


@contextlib.contextmanager
def _pinned_threads(experiment: Experiment[Any], resources: Resources) -> Iterator[None]:
    """Hold BLAS, OpenMP and torch to the trial's CPUs (at least one thread)."""
    threads = max(1, math.floor(resources.trial.cpus))
    before: int | None = None
    if experiment.uses_torch:
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(threads)
    try:
        with _thread_pools(len(sys.modules)).limit(limits=threads):
            yield
    finally:
        if before is not None:
            torch.set_num_threads(before)


@lru_cache(maxsize=1)
def _thread_pools(modules: int) -> ThreadpoolController:
    """The thread pools of the libraries in this process, searched again after each import."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def pin_environment(cpus: float = 1.0) -> None:
    """Set the environment variables from which libraries read their number of threads.

    Variables that are set stay as they are. Ray sets its workers' from the CPUs of the actor.
    """
    threads = str(max(1, math.floor(cpus)))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, threads)
