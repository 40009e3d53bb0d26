"""Running one trial, the same way whichever runner asked for it.

Seeds, threads, logs and failures are handled here, so that a trial gives the same numbers
in-process and inside a Ray actor.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
import shutil
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from modicum.execution.messages import EndMessage, RecordMessage
from modicum.experiment.experiment import Experiment
from modicum.experiment.metric import Record, Value
from modicum.experiment.resources import Resources
from modicum.experiment.trial import Trial
from modicum.planning.trial_plan import TrialPlan
from modicum.run_folder.trial_record import CHECKPOINT_NOTE, records_before
from modicum.seeding import seeded


class _Tee(io.TextIOBase):
    """Keeps what is written for the trial's log file, and passes it on where it went before."""

    def __init__(self, buffer: io.StringIO, onward: TextIO | None) -> None:
        self._buffer = buffer
        self._onward = onward

    def write(self, text: str) -> int:
        self._buffer.write(text)
        if self._onward is not None:
            self._onward.write(text)
        return len(text)

    def flush(self) -> None:
        if self._onward is not None:
            self._onward.flush()


class _Log:
    """Collects a trial's output and log lines until a message takes them along."""

    def __init__(self, echo: bool) -> None:
        self._buffer = io.StringIO()
        self._echo = echo
        handler = logging.StreamHandler(self._buffer)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.logger = logging.Logger("modicum.trial")
        self.logger.addHandler(handler)

    @contextlib.contextmanager
    def capture(self) -> Iterator[None]:
        out = sys.stdout if self._echo else None
        err = sys.stderr if self._echo else None
        with (
            contextlib.redirect_stdout(_Tee(self._buffer, out)),
            contextlib.redirect_stderr(_Tee(self._buffer, err)),
        ):
            yield

    def take(self) -> str:
        text = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        return text


def execute(
    experiment: Experiment[Any],
    plan: TrialPlan,
    resources: Resources,
    checkpoint: Path | None = None,
    echo: bool = False,
    storage: str | None = None,
) -> Generator[RecordMessage | EndMessage]:
    """Run a trial and yield its messages; the last one is an `EndMessage`.

    Exceptions of the experiment do not leave this function: they become a failed
    `EndMessage` with the traceback. `KeyboardInterrupt` and `SystemExit` pass.

    Args:
        experiment: What to run.
        plan: The trial.
        resources: What the trial was given; torch and BLAS are pinned to its CPUs.
        checkpoint: Folder of a checkpoint of this very trial to resume from.
        echo: Also pass the trial's output on to this process's own.
        storage: The trial's place for state that outlives this process; see `Trial`.
    """
    scratch = Path(tempfile.mkdtemp(prefix=f"modicum-{plan.id}-"))
    log = _Log(echo)
    try:
        with _pinned(experiment, resources), seeded(plan.seed, uses_torch=experiment.uses_torch):
            trial = Trial(
                id=plan.id,
                seed=plan.seed,
                scratch=scratch,
                resources=resources,
                checkpoint=checkpoint,
                records_done=0 if checkpoint is None else records_before(checkpoint),
                storage=storage,
                log=log.logger,
            )
            yield from _messages(experiment, plan, trial, log)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _messages(
    experiment: Experiment[Any], plan: TrialPlan, trial: Trial, log: _Log
) -> Iterator[RecordMessage | EndMessage]:
    started = time.perf_counter()
    index = trial.records_done
    previous = -math.inf
    try:
        with log.capture():
            config = experiment.Config.model_validate(plan.config)
            _check_data(experiment.data_digests(config), plan.digests)
            records = iter(experiment.run(config, trial))
        while True:
            with log.capture():
                record = next(records, None)
                if record is None:
                    break
                budget, metrics = _checked(experiment, record, previous)
            previous = budget
            if record.checkpoint is not None:
                note = {"trial": plan.id, "records": index + 1}
                (record.checkpoint / CHECKPOINT_NOTE).write_text(json.dumps(note))
            seconds = time.perf_counter() - started
            yield RecordMessage(index, budget, metrics, seconds, log.take(), record.checkpoint)
            index += 1
        if index == 0:
            raise RuntimeError(f"experiment {experiment.name!r} yielded no record")
    except Exception as error:
        trace = traceback.format_exc()
        summary = f"{type(error).__name__}: {error}".splitlines()[0]
        yield EndMessage("failed", summary, trace, time.perf_counter() - started, log.take())
    else:
        yield EndMessage("finished", "", "", time.perf_counter() - started, log.take())


def _check_data(here: Mapping[str, str], planned: Mapping[str, str]) -> None:
    """A trial on other data than its identity says would be a silent mix."""
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
        ValueError: The budget is not a finite number or shrank, or a metric that is to be
            large or small is not finite.
        InputError: A metric was not declared.
    """
    budget = float(record.budget)
    if not math.isfinite(budget) or budget < 0:
        raise ValueError(f"a record's budget must be finite and not negative, got {budget}")
    if budget < previous:
        raise ValueError(f"the budget spent cannot shrink, got {budget} after {previous}")
    metrics: dict[str, Value] = {}
    for name, value in record.metrics.items():
        if name in {"budget", "seconds"}:
            raise ValueError(f"the name {name!r} is taken; a metric needs another")
        goal = experiment.metric(name).goal
        # NumPy and torch scalars as Python's own.
        plain: object = getattr(value, "item", lambda value=value: value)()
        if plain is not None and not isinstance(plain, bool | int | float | str):
            raise ValueError(f"metric {name!r} must be a number or text, got {type(plain)}")
        if goal is not None and isinstance(plain, float) and not math.isfinite(plain):
            raise ValueError(f"metric {name!r} is {plain}: the trial has diverged")
        metrics[name] = plain
    return budget, metrics


@contextlib.contextmanager
def _pinned(experiment: Experiment[Any], resources: Resources) -> Iterator[None]:
    """Hold BLAS, OpenMP and torch to the trial's CPUs (at least one thread)."""
    from threadpoolctl import threadpool_limits

    threads = max(1, math.floor(resources.trial.cpus))
    before: int | None = None
    if experiment.uses_torch:
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(threads)
    try:
        with threadpool_limits(limits=threads):
            yield
    finally:
        if before is not None:
            torch.set_num_threads(before)


def pin_environment(cpus: float = 1.0) -> None:
    """Set the thread variables that libraries read when they load, where they are unset.

    Ray does the same for its workers from the CPUs of their actor.
    """
    threads = str(max(1, math.floor(cpus)))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, threads)
