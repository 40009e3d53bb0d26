"""The number of trials that run at once, which follows the cluster while it grows and shrinks."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.search import ConcurrencyLimiter, Searcher
from ray.util.placement_group import placement_group, remove_placement_group

from modicum.experiment.resources import Resources, trials_that_fit
from modicum.ray_support.connection import node_resources

if TYPE_CHECKING:
    from ray.tune.experiment import Trial as TuneTrial

# Seconds between two looks at the cluster's nodes.
_INTERVAL = 1.0


class Capacity(tune.Callback):
    """Limits the trials at once to what fits on the nodes that there are, as Tune's callback.

    Args:
        needs: Resources of each kind of trial.
        most: Largest number of trials at once; None for as many as fit.
        ahead: Queue as many trials again, for which an autoscaler then adds nodes. Not for trials
            with workers that reserve their resources themselves: those would start regardless.
    """

    def __init__(self, needs: Collection[Resources], most: int | None, ahead: bool) -> None:
        self._needs, self._most = needs, most
        self._factor = 2 if ahead and not any(need.nested for need in needs) else 1
        self._limiter: Any = None
        self._next_look = 0.0

    def limited(self, source: Searcher) -> Searcher:
        """A source of trials that waits while the cluster is full."""
        self._limiter = ConcurrencyLimiter(source, max_concurrent=self._trials())
        return self._limiter  # type: ignore[no-any-return]

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """Look at the cluster now and then."""
        if time.monotonic() >= self._next_look:
            self._limiter.max_concurrent = self._trials()
            self._next_look = time.monotonic() + _INTERVAL

    def _trials(self) -> int:
        nodes = node_resources()
        fit = self._factor * min(trials_that_fit(nodes, need) for need in self._needs)
        # Without a node, Tune waits for one.
        return max(1, fit if self._most is None else min(fit, self._most))


def wait_for_room(needs: Collection[Resources], seconds: float) -> None:
    """Wait until the cluster has nodes for one trial of each kind, or the time has passed.

    Meanwhile a placement group asks for them, as Tune does for a trial, so that an autoscaler acts.

    Args:
        needs: Resources of each kind of trial.
        seconds: Longest time to wait.
    """
    deadline = time.monotonic() + seconds
    for need in needs:
        bundles = [bundle.as_ray() for bundle in need.bundles]
        group = placement_group([bundle for bundle in bundles if bundle])
        try:
            while time.monotonic() < deadline and not trials_that_fit(node_resources(), need):
                time.sleep(min(_INTERVAL, max(0.0, deadline - time.monotonic())))
        finally:
            remove_placement_group(group)
