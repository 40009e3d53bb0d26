"""Ends of Ray Tune's trials that Tune does not know of, and of processes not to be handed on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray.tune import Stopper
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from modicum.execution.messages import EndMessage, RecordMessage
from modicum.execution.tune.failures import Failures
from modicum.execution.tune.trainable import MESSAGE, placement, trial_id
from modicum.ray_support.private_api import end_actor_with_trial, stop_tune_trial
from modicum.run_folder.stop_requests import StopRequests

if TYPE_CHECKING:
    from ray.tune.experiment import Trial as TuneTrial


class StudyStopper(Stopper):
    """Ends the whole run when a request asks for it."""

    def __init__(self, requests: StopRequests) -> None:
        self._requests = requests

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return False: no result stops a trial."""
        return False

    def stop_all(self) -> bool:
        """Tell whether the study is to stop."""
        # Tune, which pickles what it is given, keeps None.
        return self._requests is not None and self._requests.study


class StoppingScheduler(TrialScheduler):
    """The study's scheduler, which also stops trials on request or after too many failures.

    Tune calls its scheduler in every step. It calls stoppers only after a result, which may be
    long in coming. Also keeps Tune from reusing the actor of a trial that has left its process
    changed, and gives a trial whose process died one that no trial had before.

    Args:
        inner: The study's scheduler; None for one that starts trials in their order.
        requests: Trials to stop.
        failures: Says which trials are not started again.
    """

    def __init__(
        self, inner: TrialScheduler | None, requests: StopRequests, failures: Failures
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inner: Any = inner or FIFOScheduler()  # type: ignore[no-untyped-call]
        self._requests, self._failures = requests, failures

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Stop trials, then let the inner scheduler choose."""
        for trial in list(tune_controller.get_live_trials()):
            name = trial_id(trial)
            if self._requests.stops(name) or name in self._failures.final:
                stop_tune_trial(tune_controller, trial)
        chosen: TuneTrial | None = self._inner.choose_trial_to_run(tune_controller)
        return chosen

    def _settle_reuse(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        message: RecordMessage | EndMessage | None = result.get(MESSAGE)
        if message is not None and message.left:
            end_actor_with_trial(tune_controller, trial)

    # The rest is delegated to the inner scheduler.

    @property
    def metric(self) -> str | None:
        """Metric of the inner scheduler."""
        metric: str | None = self._inner.metric
        return metric

    @property
    def supports_buffered_results(self) -> bool:
        """Delegated."""
        return bool(self._inner.supports_buffered_results)

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Delegated."""
        return bool(self._inner.set_search_properties(metric, mode, **spec))

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Delegated."""
        self._inner.on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Delegated, once the trial is to get a process of its own, if it is started again."""
        if trial.status == trial.ERROR:
            trial.update_resources(placement(trial.config, own_process=True))
        self._inner.on_trial_error(tune_controller, trial)

    def on_trial_result(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        """Delegated, once the actor's reuse is settled."""
        self._settle_reuse(tune_controller, trial, result)
        return str(self._inner.on_trial_result(tune_controller, trial, result))

    def on_trial_complete(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> None:
        """Delegated, once the actor's reuse is settled."""
        self._settle_reuse(tune_controller, trial, result)
        self._inner.on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Delegated."""
        self._inner.on_trial_remove(tune_controller, trial)

    def debug_string(self) -> str:
        """Delegated."""
        return str(self._inner.debug_string())
