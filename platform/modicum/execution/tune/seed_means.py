"""ASHA over configurations: its decisions are made on means over seeds, and end all seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from modicum.execution.recorder import Recorder
from modicum.execution.tune.trainable import MESSAGE, trial_id

if TYPE_CHECKING:
    from ray.tune.experiment import Trial as TuneTrial

_ENDED = {"finished", "failed", "stopped"}


@dataclass
class _Configuration:
    """The trials of one configuration.

    Attributes:
        trials: Ids of its trials, one for each seed.
        leader: Trial that stands for the configuration before the inner scheduler.
        decided: Number of records of which the inner scheduler has been told the mean.
        last: Latest mean that it was told.
    """

    trials: list[str] = field(default_factory=list)
    leader: TuneTrial | None = None
    decided: int = 0
    last: dict[str, Any] = field(default_factory=dict)


class SeedMeans(FIFOScheduler):
    """Shows a scheduler one trial for each configuration, with the mean of its metric over seeds.

    The scheduler is told of record n once every seed has reported it; failed trials, and those
    stopped on request, are left out. A stop ends all seeds of the configuration: each running one
    at its next record, and finished ones count as ended early as well.

    Args:
        inner: Scheduler that continues or stops trials, and pauses none.
        recorder: Knows the records of all seeds, those of an earlier run included.
    """

    def __init__(self, inner: TrialScheduler, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inner: Any = inner
        self._recorder = recorder
        self._configurations: dict[str, _Configuration] = {}
        self._of_trial: dict[str, _Configuration] = {}

    @property
    def metric(self) -> str | None:
        """Metric of the inner scheduler."""
        metric: str | None = self._inner.metric
        return metric

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Add a configuration to the inner scheduler with its first trial."""
        configuration = self._configuration(trial_id(trial))
        if configuration.leader is None:
            configuration.leader = trial
            self._inner.on_trial_add(tune_controller, trial)

    def on_trial_result(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        """Let the inner scheduler decide on the records that all seeds have reached."""
        name, message = trial_id(trial), result[MESSAGE]
        configuration = self._configuration(name)
        if self._is_ended(configuration):
            return TrialScheduler.STOP
        rows = {
            seed: self._recorder.trials[seed].rows
            for seed in configuration.trials
            if self._recorder.trials[seed].status not in {"failed", "stopped"}
        }
        # The recorder takes the message after the scheduler.
        row = {"budget": message.budget, **message.metrics}
        rows[name] = [*rows[name][: message.index], row]
        if self._decide(tune_controller, configuration, rows) != TrialScheduler.STOP:
            return TrialScheduler.CONTINUE
        self._withdraw(configuration)
        return TrialScheduler.STOP

    def _decide(
        self,
        tune_controller: Any,
        configuration: _Configuration,
        rows: Mapping[str, Sequence[Mapping[str, Any]]],
    ) -> str:
        while True:
            index = configuration.decided
            if not all(index < len(r) or self._has_finished(seed) for seed, r in rows.items()):
                return TrialScheduler.CONTINUE
            if all(index >= len(r) for r in rows.values()):
                return TrialScheduler.CONTINUE
            configuration.decided += 1
            # A trial that has finished with fewer records keeps its last value.
            reached = [r[min(index, len(r) - 1)] for r in rows.values()]
            metric = str(self.metric)
            values = [row[metric] for row in reached if row.get(metric) is not None]
            if len(values) < len(reached):
                continue
            common = {k: min(row[k] for row in reached) for k in self._numbers(reached)}
            common |= {"training_iteration": index + 1, metric: fmean(values)}
            configuration.last = common
            leader = configuration.leader
            action = self._inner.on_trial_result(tune_controller, leader, common)
            if action == TrialScheduler.STOP:
                return str(action)

    @staticmethod
    def _numbers(rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Names of which every record has a number."""
        return [k for k in rows[0] if all(isinstance(row.get(k), int | float) for row in rows)]

    def on_trial_complete(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> None:
        """End the configuration before the inner scheduler with its last trial."""
        name = trial_id(trial)
        configuration = self._configuration(name)
        if self._is_ended(configuration):
            self._withdraw(configuration)
        states = self._recorder.trials
        if all(seed == name or states[seed].status in _ENDED for seed in configuration.trials):
            self._inner.on_trial_complete(tune_controller, configuration.leader, configuration.last)

    def debug_string(self) -> str:
        """Delegated."""
        return str(self._inner.debug_string())

    def _configuration(self, name: str) -> _Configuration:
        """The configuration of a trial; a search adds trials as it goes."""
        for plan in islice(self._recorder.plans.values(), len(self._of_trial), None):
            key = plan.config.model_dump_json()
            configuration = self._configurations.setdefault(key, _Configuration())
            configuration.trials.append(plan.id)
            self._of_trial[plan.id] = configuration
        return self._of_trial[name]

    def _has_finished(self, name: str) -> bool:
        return self._recorder.trials[name].status == "finished"

    def _is_ended(self, configuration: _Configuration) -> bool:
        """Tell whether the scheduler has ended a trial of the configuration, in any run."""
        states = (self._recorder.trials[name] for name in configuration.trials)
        return any(s.status == "stopped" and s.stopped_by == "scheduler" for s in states)

    def _withdraw(self, configuration: _Configuration) -> None:
        for name in filter(self._has_finished, configuration.trials):
            self._recorder.withdraw(name)
