"""What an experiment is: a name, a version, settings, a budget unit, and records.

This module imports nothing heavy, so that a package can define its experiments
without slowing down `modicum --help`.
"""

from __future__ import annotations

import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from pydantic import BaseModel, ConfigDict, Field

from modicum.errors import unknown_name

if TYPE_CHECKING:
    from modicum.trial import Trial

BudgetUnit = Literal["labels", "samples", "episodes", "oracle_calls"]
Value = float | int | str | bool | None


class Config(BaseModel):
    """Base of an experiment's settings: unknown keys and NaN are refused, values are frozen.

    A pydantic model whose fields are made by `setting`; a field may be another `Config`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def setting(
    default: Any = ...,
    *,
    description: str,
    unit: str | None = None,
    identity: bool = True,
    sets_budget: bool = False,
    used_by: Mapping[str, Sequence[Any]] | None = None,
    **constraints: Any,
) -> Any:
    """A field of a `Config`, with what `modicum describe` says about it.

    Args:
        default: Default value; leave out for a required setting.
        description: One sentence for the user.
        unit: Unit of the value, for example `"iterations"`.
        identity: False for paths, logging and the like: a trial is the same trial whatever
            the value. Data is identified by its digest instead (`Experiment.data_digests`).
        sets_budget: True where the value decides how much a trial spends (a fraction of labels):
            trials that differ in nothing else join into one curve against budget.
        used_by: Other settings' values under which this one has an effect, for example
            `{"method": ("iwl", "iwld")}`. Elsewhere it is left out of the trial's identity
            and of the results, so that a grid over it does not repeat trials.
        **constraints: Passed to `pydantic.Field` (`ge`, `le`, `gt`, `min_length`, ...).
    """
    extra: dict[str, Any] = {
        "unit": unit,
        "identity": identity,
        "sets_budget": sets_budget,
        "used_by": None if used_by is None else {k: list(v) for k, v in used_by.items()},
    }
    return Field(default, description=description, json_schema_extra=extra, **constraints)


@dataclass(frozen=True)
class Metric:
    """What a number in a record means.

    Attributes:
        description: One sentence.
        goal: Whether more or less of it is better; None where neither is.
        unit: Unit of the value; None for a pure number.
        timing: True for wall-clock figures, which alone may differ between two runs of the
            same trial.
        evaluation_cost: True for what evaluation spent (validation labels, evaluation
            episodes): reported in columns of its own, never part of the budget.
    """

    description: str
    goal: Literal["max", "min"] | None = None
    unit: str | None = None
    timing: bool = False
    evaluation_cost: bool = False


@dataclass(frozen=True, kw_only=True)
class Record:
    """One row of a trial's results.

    Attributes:
        budget: Distinct data acquired for training so far, in the experiment's budget unit.
        metrics: Values by slash name, such as `test/accuracy`; every name must be declared in
            `Experiment.metrics`.
        checkpoint: A folder with the state to resume from after this record and what the user
            takes away (weights, an exported model). The runner copies it before the generator
            goes on; its best and last copies are kept.
    """

    budget: float
    metrics: Mapping[str, Value]
    checkpoint: Path | None = None


@dataclass(frozen=True)
class Bundle:
    """Processors and memory that one process needs, all on one node.

    Attributes:
        cpus: CPU cores, may be a fraction.
        gpus: GPUs, may be a fraction.
        memory: Bytes, or 0 to leave it unreserved.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory: float = 0.0

    def as_ray(self) -> dict[str, float]:
        """The bundle in Ray's names, zeros left out."""
        named = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        return {name: amount for name, amount in named.items() if amount}


@dataclass(frozen=True)
class Resources:
    """What one trial needs.

    Attributes:
        trial: The process that runs `Experiment.run`.
        actors: Reserved together with the trial, for actors that it starts itself
            (an RLlib algorithm's environment runners).
        nested: Asked for by the trial beyond what is reserved with it (a Ray Train worker
            group places itself). The runner starts only as many trials at once as fit with
            these included, so that trials cannot starve each other.
    """

    trial: Bundle = Bundle()
    actors: tuple[Bundle, ...] = ()
    nested: tuple[Bundle, ...] = ()

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """Everything that one running trial occupies."""
        return (self.trial, *self.actors, *self.nested)


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


M = TypeVar("M")


def find_metric(declared: Mapping[str, M], name: str) -> M:
    """The declaration of a metric: under its own name, else under the first pattern it fits.

    Raises:
        InputError: No such metric.
    """
    if name in declared:
        return declared[name]
    for pattern, metric in declared.items():
        if fnmatch.fnmatchcase(name, pattern):
            return metric
    raise unknown_name("metric", name, declared)


@dataclass(frozen=True)
class SettingInfo:
    """A setting as `modicum describe` shows it and as identities need it."""

    name: str
    description: str
    kind: str
    default: Any
    required: bool
    unit: str | None
    identity: bool
    sets_budget: bool = False
    used_by: Mapping[str, Sequence[Any]] | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    is_mapping: bool = False

    def active(self, values: Mapping[str, Any]) -> bool:
        """Whether the setting has an effect in a configuration (flat dotted names).

        Where experiments share settings, one may lack another on which a setting depends: that
        restricts nothing.
        """
        conditions = (self.used_by or {}).items()
        return all(values[other] in allowed for other, allowed in conditions if other in values)


def settings_of(model: type[BaseModel], prefix: str = "") -> dict[str, SettingInfo]:
    """Every setting of a config model by dotted name, nested models included."""
    found: dict[str, SettingInfo] = {}
    for name, info in model.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found.update(settings_of(annotation, f"{prefix}{name}."))
            continue
        raw = info.json_schema_extra
        extra: dict[str, Any] = dict(raw) if isinstance(raw, dict) else {}
        limits = {
            key: getattr(rule, key)
            for rule in info.metadata
            for key in ("ge", "gt", "le", "lt", "min_length", "max_length")
            if getattr(rule, key, None) is not None
        }
        found[prefix + name] = SettingInfo(
            name=prefix + name,
            description=info.description or "",
            kind=_kind(annotation),
            default=None if info.is_required() else info.get_default(call_default_factory=True),
            required=info.is_required(),
            unit=extra.get("unit"),
            identity=extra.get("identity", True),
            sets_budget=extra.get("sets_budget", False),
            used_by=extra.get("used_by"),
            limits=limits,
            is_mapping=(get_origin(annotation) or annotation) is dict,
        )
    return found


def _kind(annotation: Any) -> str:
    if get_origin(annotation) in {Union, UnionType}:
        return " | ".join(_kind(choice) for choice in get_args(annotation))
    if annotation is NoneType:
        return "None"
    if getattr(annotation, "__origin__", None) is Literal:
        return " | ".join(str(choice) for choice in annotation.__args__)
    if isinstance(annotation, type) and not getattr(annotation, "__args__", ()):
        return annotation.__name__
    return str(annotation).replace("typing.", "").replace("Literal", "")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level of dotted names; an empty mapping stays a value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def unflatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *parents, leaf = key.split(".")
        level = nested
        for parent in parents:
            level = level.setdefault(parent, {})
        level[leaf] = value
    return nested
