"""The interface of an experiment.

This module imports nothing heavy, so a package can define its experiments without slowing down
`modicum --help`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar, Generic, Literal, TypeVar

from modicum.experiment.config import Config
from modicum.experiment.metric import BudgetUnit, Metric, Record, Value, find_metric
from modicum.experiment.resources import Resources
from modicum.experiment.trial import Trial

C = TypeVar("C", bound=Config)

Isolation = Literal["process", "reused"]


class Experiment(ABC, Generic[C]):
    """A method, or a family of methods, that spends a budget and yields records.

    Subclasses set the class attributes and implement `run`. A package registers them through the
    entry-point group `modicum.experiments`; `Study` also takes a class or an instance.

    Attributes:
        name: Name in studies and on the command line.
        version: Version of the results. Change it when the same settings would give other
            numbers: it is part of every trial's identity, so finished trials are computed again.
        budget_unit: Unit of the budget, the x-axis of every curve.
        Config: The settings.
        metrics: All metrics that a record may carry; a name may contain wildcards
            (`test/recall/*`).
        needs_ray: True if `run` needs a Ray runtime; the local runner refuses the experiment.
        selection_metric: Metric that selects the best checkpoint, which is kept beside the last;
            never a metric of the test data.
        isolation: `process` runs each trial in a process that no other trial has had or gets; the
            local runner, which has one process, refuses the experiment. `reused` runs trials one
            after the other in a process. After each trial the process gets back its environment
            variables, working folder, filters of warnings, loggers, error handling of NumPy, flags
            of torch, and the globals of the modules of the experiment's package. Where such globals
            had changed, or something could not be put back, the trial's log says so, and on Ray the
            process is replaced.
        uses_torch: True if torch is to be seeded and pinned to the trial's CPUs.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    budget_unit: ClassVar[BudgetUnit]
    Config: ClassVar[type[Config]]
    metrics: ClassVar[Mapping[str, Metric]]
    needs_ray: ClassVar[bool] = False
    isolation: ClassVar[Isolation] = "reused"
    uses_torch: ClassVar[bool] = False
    selection_metric: ClassVar[str | None] = None

    def check(self, config: C) -> None:
        """Check settings that are valid one by one: combinations, sizes, and the data's presence.

        Called for every distinct configuration before anything starts.

        Raises:
            InputError: The settings cannot work together.
        """

    def data_digests(self, config: C) -> Mapping[str, str]:
        """Digests of the data that the trial reads, by role; they are part of its identity.

        Raises:
            InputError: Data is missing.
        """
        return {}

    def resources(self, config: C) -> Resources:
        """Processors and memory that one trial needs; one CPU unless overridden."""
        return Resources()

    def saves_checkpoints(self, config: C) -> bool:
        """Tell whether records of this configuration carry checkpoints."""
        return False

    @abstractmethod
    def run(self, config: C, trial: Trial) -> Iterator[Record]:
        """Do the work of one trial, and yield a record whenever there is something to report.

        The last record is the trial's result. All random numbers must derive from
        `trial.seed_for`, and all files must be written under `trial.scratch`.

        Args:
            config: Settings of the trial.
            trial: Seeds, a folder for files, and the checkpoint of an earlier attempt.
        """

    def metric(self, name: str) -> Metric:
        """The declaration of a metric.

        Raises:
            InputError: The experiment declares no such metric.
        """
        return find_metric(self.metrics, name)

    def selection_score(self, metrics: Mapping[str, Value]) -> float | None:
        """A record's selection metric, signed so that larger is better; None without one."""
        value = None if self.selection_metric is None else metrics.get(self.selection_metric)
        if self.selection_metric is None or not isinstance(value, int | float):
            return None
        return -value if self.metric(self.selection_metric).goal == "min" else value
