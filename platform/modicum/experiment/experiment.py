"""What an experiment is: a name, a version, settings, a budget unit, and records.

This module imports nothing heavy, so that a package can define its experiments
without slowing down `modicum --help`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar, Generic, TypeVar

from modicum.experiment.config import Config
from modicum.experiment.metric import BudgetUnit, Metric, Record, Value, find_metric
from modicum.experiment.resources import Resources
from modicum.experiment.trial import Trial

C = TypeVar("C", bound=Config)


class Experiment(ABC, Generic[C]):
    """A method, or a family of methods, that spends a budget and yields records.

    Subclasses set the class attributes and implement `run`. They are registered through the
    entry-point group `modicum.experiments`, or passed to `Study` as a class.

    Attributes:
        name: Name in studies and on the command line.
        version: Part of every trial's identity: change it when the same settings would give
            other numbers, and finished trials are computed again.
        budget_unit: What the x-axis counts.
        Config: The settings.
        metrics: Every metric that a record may carry; a name may hold wildcards
            (`test/recall/*`).
        needs_ray: True when `run` itself needs a Ray runtime; the local runner refuses it.
        selection_metric: Metric by which the best checkpoint is kept beside the last; never one
            of the test data.
        uses_torch: True when torch is to be seeded and pinned to the trial's CPUs.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    budget_unit: ClassVar[BudgetUnit]
    Config: ClassVar[type[Config]]
    metrics: ClassVar[Mapping[str, Metric]]
    needs_ray: ClassVar[bool] = False
    uses_torch: ClassVar[bool] = False
    selection_metric: ClassVar[str | None] = None

    def check(self, config: C) -> None:
        """Raise `InputError` where settings that are valid one by one cannot work together.

        Called for every distinct configuration before anything starts: missing data,
        impossible combinations, sizes that do not fit.

        Args:
            config: Valid settings, one by one.
        """

    def data_digests(self, config: C) -> Mapping[str, str]:
        """Digests of the data that the trial reads, by role; part of its identity.

        Args:
            config: Settings of the trial.

        Raises:
            InputError: The data is not there.
        """
        return {}

    def resources(self, config: C) -> Resources:
        """What one trial with this configuration needs; one CPU unless overridden.

        Args:
            config: Settings of the trial.
        """
        return Resources()

    def saves_checkpoints(self, config: C) -> bool:
        """Whether records of this configuration carry checkpoints."""
        return False

    @abstractmethod
    def run(self, config: C, trial: Trial) -> Iterator[Record]:
        """Do the work of one trial, yielding a record whenever there is something to report.

        The last record is the trial's result. Everything random must derive from
        `trial.seed_for`, and everything written must go under `trial.scratch`.

        Args:
            config: Settings of the trial.
            trial: Seeds, a place for files, and what an earlier attempt left.
        """

    def metric(self, name: str) -> Metric:
        """The declaration of a metric.

        Raises:
            InputError: No such metric.
        """
        return find_metric(self.metrics, name)

    def selection_score(self, metrics: Mapping[str, Value]) -> float | None:
        """A record's selection metric, signed so that larger is better; None if it has none."""
        value = None if self.selection_metric is None else metrics.get(self.selection_metric)
        if self.selection_metric is None or not isinstance(value, int | float):
            return None
        return -value if self.metric(self.selection_metric).goal == "min" else value
