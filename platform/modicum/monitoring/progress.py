"""Progress display of a study: trials done, running and failed, time left, best so far."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from modicum.execution.recorder import Listener, Recorder
from modicum.execution.trial_output import undiverted_stderr
from modicum.experiment.setting_filters import varying
from modicum.results.formatting import show, show_duration, show_number
from modicum.run_folder.trial_record import TrialRecord

# Shortest time between two lines, without a terminal.
_LINE_SECONDS = 15.0
_DONE = {"finished", "failed", "stopped"}


class Progress(Listener):
    """Shows the progress of a study: a live line on a terminal, else a line now and then.

    Args:
        recorder: Recorder of the trials.
        metric: Metric of "best so far"; None to leave that out.
        quiet: Show nothing.
        total: Number of trials in all, if the recorder does not know them yet.
    """

    def __init__(
        self,
        recorder: Recorder,
        metric: str | None,
        *,
        quiet: bool = False,
        total: int | None = None,
    ) -> None:
        self._recorder = recorder
        self._metric = metric
        self._goal = recorder.experiment.metric(metric).goal if metric else None
        self._quiet = quiet
        self._total = total
        self._console = Console(file=undiverted_stderr())
        self._live: Live | None = None
        self._started = self._printed = time.monotonic()

    def __enter__(self) -> Self:
        self._started = self._printed = time.monotonic()
        if not self._quiet:
            self._recorder.listeners.append(self)
            if self._console.is_terminal:
                self._live = Live(
                    get_renderable=lambda: Text(self.line()),
                    console=self._console,
                    refresh_per_second=4,
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()
        if not self._quiet:
            self._recorder.listeners.remove(self)
            self._console.print(self.line(), soft_wrap=True, highlight=False)

    def _print(self, trial: TrialRecord) -> None:
        """Print a line, if the last one is long ago and there is no terminal."""
        if self._live is None and time.monotonic() - self._printed > _LINE_SECONDS:
            self._printed = time.monotonic()
            self._console.print(self.line(), soft_wrap=True, highlight=False)

    started = recorded = ended = _print

    def seconds_left(self) -> float | None:
        """Time of the remaining trials at the pace so far; None before the first trial ends."""
        done = sum(trial.status in _DONE for trial in list(self._recorder.trials.values()))
        fresh = done - len(self._recorder.reused)
        if not fresh:
            return None
        return (time.monotonic() - self._started) / fresh * (self.total() - done)

    def total(self) -> int:
        """Number of trials in all, as far as it is known."""
        return max(self._total or 0, len(self._recorder.trials))

    def line(self) -> str:
        """State of the study in one line."""
        trials = list(self._recorder.trials.values())
        counts: Counter[str] = Counter(trial.status for trial in trials)
        done, total = sum(counts[status] for status in _DONE), self.total()
        reused = len(self._recorder.reused)
        parts = [f"{done}/{total} trials done" + (f" ({reused} earlier)" if reused else "")]
        parts += [f"{counts[s]} {s}" for s in ("running", "failed", "stopped") if counts[s]]
        left = self.seconds_left()
        if done == total:
            parts.append(f"took {show_duration(time.monotonic() - self._started)}")
        elif left is not None:
            parts.append(f"{show_duration(left)} left")
        return ", ".join([*parts, *self._best(trials)])

    def _best(self, trials: list[TrialRecord]) -> Iterator[str]:
        """Metric and settings of the best finished trial, if there is one."""
        if self._metric is None or self._goal is None:
            return
        values = [
            (value, trial)
            for trial in trials
            if trial.status == "finished"
            and isinstance(value := trial.value(self._metric), int | float)
        ]
        if not values:
            return
        pick = max if self._goal == "max" else min
        value, trial = pick(values, key=lambda pair: pair[0])
        varied = varying(trial.columns for trial in trials)
        settings = ", ".join(show(trial.columns.get(name)) for name in varied)
        yield f"best {self._metric} {show_number(value)} ({settings})"
