"""Tune's callback that hands reports to the recorder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray import tune

from modicum.execution.messages import RecordMessage
from modicum.execution.recorder import Recorder
from modicum.execution.tune.failures import Failures, last_error
from modicum.execution.tune.searchers import SeededSearch
from modicum.execution.tune.trainable import HOST, MESSAGE, trial_id
from modicum.planning.trial_plan import TrialPlan
from modicum.run_folder.stop_requests import StopRequests

if TYPE_CHECKING:
    from ray.tune.experiment import Trial as TuneTrial


class Collector(tune.Callback):
    """Hands Tune's reports to the recorder.

    Tune starts a trial again whose process died, but gives up a trial that was about to get the
    process of another trial and found it dead. Such trials are kept for another round.

    Args:
        recorder: Takes the messages.
        search: The study's search, to be told of ended trials; None without one.
        requests: Trials to stop.
        failures: Told of processes that died; says which trials are not started again.
    """

    def __init__(
        self,
        recorder: Recorder,
        search: SeededSearch | None,
        requests: StopRequests,
        failures: Failures,
    ) -> None:
        self._recorder, self._search, self._requests = recorder, search, requests
        self._failures = failures
        self._skipped: list[str] = []
        self._started: set[str] = set()
        self._ended: set[str] = set()

    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """Note the start."""
        self._started.add(trial_id(trial))
        self._failures.started(trial)
        self._recorder.start(trial_id(trial))

    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """Hand on the message."""
        name, message = trial_id(trial), result[MESSAGE]
        if isinstance(message, RecordMessage):
            self._failures.recorded(name, message.index)
            self._recorder.record(name, message, result[HOST])
        else:
            self._ended.add(name)
            self._recorder.end(name, message)

    def on_checkpoint(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        checkpoint: Any,
        **info: Any,
    ) -> None:
        """Note where Tune has put the checkpoint."""
        where = "/".join(checkpoint.path.rstrip("/").split("/")[-3:])
        self._recorder.saved_checkpoint(trial_id(trial), where)

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """Note a stop: a trial that ran to its end has said so in its last message."""
        name = trial_id(trial)
        if name in self._failures.final:
            self._recorder.lose(name, *self._failures.final[name])
            self._settle()
            return
        on_request = self._requests.stops(name)
        # Trials that had not started when the whole study was stopped stay pending.
        meant = name in self._started or (on_request and not self._requests.study)
        if meant and name not in self._ended:
            self._recorder.stop(name, by="request" if on_request else "scheduler")
        self._settle()

    def on_trial_recover(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """Count a process that died, unless a request to stop has killed it."""
        if not self._requests.stops(trial_id(trial)):
            self._failures.died(trial)

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """Note that a trial was given up; before its start, it is kept for another round."""
        name = trial_id(trial)
        if name in self._started:
            self._recorder.lose(name, *last_error(trial))
            self._settle()
        else:
            self._skipped.append(name)

    def take_skipped(self) -> list[TrialPlan]:
        """The trials that were given up before they had started; they are forgotten here."""
        plans = [self._recorder.plans[name] for name in self._skipped]
        self._skipped = []
        return plans

    def _settle(self) -> None:
        """Tune tells its searcher before its callbacks, when the recorder knows nothing yet."""
        if self._search is not None:
            self._search.settle()
