"""Stopping trials of Ray Tune on request, at once and not only at their next record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray.tune import Stopper
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from modicum.execution.tune.trainable import trial_id
from modicum.ray_support.private_api import stop_tune_trial
from modicum.run_folder.stop_requests import StopRequests

if TYPE_CHECKING:
    from ray.tune.experiment import Trial as TuneTrial


class StudyStopper(Stopper):
    """Ends the whole run when the study is to stop."""

    def __init__(self, requests: StopRequests) -> None:
        self._requests = requests

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial stops by what it reports."""
        return False

    def stop_all(self) -> bool:
        """Whether the study is to stop."""
        return self._requests is not None and self._requests.study


class StoppingScheduler(TrialScheduler):
    """A scheduler that also stops the trials that have been asked to stop.

    Tune asks its scheduler in every step which trial to start next, and hands it what can stop
    one; a result, after which stoppers are asked, may be long in coming.

    Args:
        inner: The study's own scheduler; None for one that starts trials in their order.
        requests: What has been asked to stop.
    """

    def __init__(self, inner: TrialScheduler | None, requests: StopRequests) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._inner: Any = inner or FIFOScheduler()  # type: ignore[no-untyped-call]
        self._requests = requests

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Stop what is to stop, then let the inner scheduler choose."""
        for trial in list(tune_controller.get_live_trials()):
            if self._requests.stops(trial_id(trial)):
                stop_tune_trial(tune_controller, trial)
        chosen: TuneTrial | None = self._inner.choose_trial_to_run(tune_controller)
        return chosen

    # All else is the inner scheduler's.

    @property
    def metric(self) -> str | None:
        """What the inner scheduler looks at."""
        metric: str | None = self._inner.metric
        return metric

    @property
    def supports_buffered_results(self) -> bool:
        """As the inner scheduler."""
        return bool(self._inner.supports_buffered_results)

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """As the inner scheduler."""
        return bool(self._inner.set_search_properties(metric, mode, **spec))

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """As the inner scheduler."""
        self._inner.on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """As the inner scheduler."""
        self._inner.on_trial_error(tune_controller, trial)

    def on_trial_result(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> str:
        """As the inner scheduler."""
        return str(self._inner.on_trial_result(tune_controller, trial, result))

    def on_trial_complete(
        self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]
    ) -> None:
        """As the inner scheduler."""
        self._inner.on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: TuneTrial) -> None:
        """As the inner scheduler."""
        self._inner.on_trial_remove(tune_controller, trial)

    def debug_string(self) -> str:
        """As the inner scheduler."""
        return str(self._inner.debug_string())
