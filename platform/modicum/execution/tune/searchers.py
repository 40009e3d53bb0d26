"""Searchers that hand a study's trials to Tune: one by one from a list, or a searcher's choices."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ray.tune.search import Searcher

from modicum.errors import InputError, reason_of
from modicum.execution.recorder import Recorder
from modicum.execution.tune.trainable import tune_config
from modicum.experiment.config import flatten, unflatten
from modicum.experiment.experiment import Experiment
from modicum.planning.search import SearchPlan, as_ray_takes
from modicum.planning.trial_plan import TrialPlan

STATE = "search"


class ListedTrials(Searcher):
    """Issues trials that are known beforehand, one by one.

    Tune's grid search copies the whole list for each trial, which is quadratic in the number of
    trials, and makes all of Tune's trial objects at the start.

    Args:
        experiment: The trials' experiment.
        plans: The trials, in the order of their starts.

    Attributes:
        remaining: Number of trials to issue.
    """

    def __init__(self, experiment: Experiment[Any], plans: Sequence[TrialPlan]) -> None:
        # Nothing is optimised, but Tune asks for an objective.
        super().__init__(metric="budget", mode="max")
        self._experiment = experiment
        self._plans = iter(plans)
        self.remaining = len(plans)

    def suggest(self, trial_id: str) -> Any:
        """The next trial for Tune."""
        plan = next(self._plans, None)
        return Searcher.FINISHED if plan is None else tune_config(self._experiment, plan)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: the recorder knows."""

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file: Tune's own snapshots are not used."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: Tune's own snapshots are not used."""


class SeededSearch(Searcher):
    """Asks a searcher for settings and tells it each objective's mean over all seeds of the study.

    The searcher's state and every suggestion are kept in the run folder, so that running again
    continues the search: unfinished trials of earlier suggestions are issued again, then new
    suggestions follow. Ray's `Repeater` averages over repeats, too, but forgets its groups when it
    is restored and knows nothing of finished trials.

    Args:
        recorder: Knows which trials are finished, and the objective's values.
        plan: The search.

    Attributes:
        remaining: Number of trials to issue.
    """

    def __init__(self, recorder: Recorder, plan: SearchPlan) -> None:
        metric, mode = as_ray_takes(plan.goals), as_ray_takes(plan.goals.values())
        super().__init__(metric=metric, mode=mode)
        self._recorder, self._plan = recorder, plan
        self._folder = recorder.folder
        self._place = (STATE, hashlib.sha256(plan.signature.encode()).hexdigest()[:12])
        self._suggestions: list[dict[str, Any]] = []
        self._queue: list[TrialPlan] = []
        # Suggestions may differ in settings without an effect alone: they share their trials.
        self._queued: set[str] = set()
        self._inner = plan.searcher
        self._inner.set_search_properties(metric, mode, unflatten(dict(plan.domains)))
        self._restore()
        fresh = max(0, plan.spec.samples - len(self._suggestions))
        self.remaining = fresh * plan.seeds + len(self._queue)

    def suggest(self, trial_id: str) -> Any:
        """The next trial for Tune; None to wait, `FINISHED` when all have been issued."""
        while not self._queue:
            if len(self._suggestions) >= self._plan.spec.samples:
                return Searcher.FINISHED
            index = len(self._suggestions)
            choice: Any = self._inner.suggest(_inner_id(index))
            if choice is None or choice == Searcher.FINISHED:
                return choice
            self._suggestions.append({"choice": flatten(choice), "told": False})
            self._enqueue(index)
            self._save()
        return tune_config(self._recorder.experiment, self._queue.pop(0))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: the searcher is told of whole suggestions only."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing yet: `settle` is called once the recorder knows how the trial ended."""

    def settle(self) -> None:
        """Tell the searcher of every suggestion whose trials have all ended."""
        for index in range(len(self._suggestions)):
            self._tell_if_complete(index)

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file: Tune's own snapshots are not used; see `_save`."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: Tune's own snapshots are not used; see `_restore`."""

    def _enqueue(self, index: int) -> None:
        """Queue the trials of a suggestion that are not finished in the run folder."""
        try:
            plans = self._plan.trials_of(self._suggestions[index]["choice"])
        except InputError:
            # An impossible or excluded combination counts as failed.
            plans = []
        self._suggestions[index]["trials"] = [plan.id for plan in plans]
        self._recorder.add(plans)
        unfinished = {plan.id for plan in self._recorder.unfinished()} - self._queued
        self._queue += [plan for plan in plans if plan.id in unfinished]
        self._queued |= unfinished & {plan.id for plan in plans}
        self._tell_if_complete(index)

    def _tell_if_complete(self, index: int) -> None:
        suggestion = self._suggestions[index]
        states = [self._recorder.trials[trial_id] for trial_id in suggestion["trials"]]
        if suggestion["told"] or any(s.status in {"pending", "running"} for s in states):
            return
        values = {name: [s.value(name) for s in states] for name in self._plan.goals}
        finished = bool(states) and all(s.status == "finished" for s in states)
        if finished and all(None not in found for found in values.values()):
            result = {name: fmean(found) for name, found in values.items()}
            result["training_iteration"] = 1
            self._inner.on_trial_complete(_inner_id(index), result)
        else:
            self._inner.on_trial_complete(_inner_id(index), error=True)
        suggestion["told"] = True
        self._save()

    def _save(self) -> None:
        with tempfile.TemporaryDirectory() as aside:
            file = Path(aside) / "searcher"
            # Searchers without a state do not implement saving.
            with contextlib.suppress(NotImplementedError):
                self._inner.save(str(file))
            if file.exists():
                self._folder.write_bytes(file.read_bytes(), *self._place, "searcher")
        self._folder.write_json(self._suggestions, *self._place, "suggestions.json")

    def _restore(self) -> None:
        if not self._folder.exists(*self._place, "suggestions.json"):
            return
        try:
            self._read()
        except OSError:
            raise
        except Exception as error:  # Unpickling a searcher's state may raise anything.
            place = self._folder.display(self._folder.set_aside(*self._place))
            warnings.warn(
                f"{self._folder.display(*self._place)}: broken state of the search "
                f"({reason_of(error)}); the search begins anew, its files are in {place}",
                stacklevel=2,
            )
            self._suggestions = []
        for index in range(len(self._suggestions)):
            self._enqueue(index)

    def _read(self) -> None:
        """Read the suggestions, then the searcher's state."""
        found = self._folder.read_json(*self._place, "suggestions.json")
        self._suggestions = [{"choice": {**s["choice"]}, "told": bool(s["told"])} for s in found]
        if self._folder.exists(*self._place, "searcher"):
            with tempfile.TemporaryDirectory() as aside:
                file = Path(aside) / "searcher"
                file.write_bytes(self._folder.read_bytes(*self._place, "searcher"))
                self._inner.restore(str(file))


def _inner_id(index: int) -> str:
    """The inner searcher's id of a suggestion, the same in every run."""
    return f"suggestion-{index}"
