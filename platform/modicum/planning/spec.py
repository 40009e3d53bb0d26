"""Fields of a study, in its file and in Python."""

from __future__ import annotations

import re
from collections.abc import Mapping
from threading import TIMEOUT_MAX
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

_MOST_SEEDS = 10_000


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


Names = Annotated[list[str], BeforeValidator(_as_list)]
Goal = Literal["max", "min"]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Target(_Spec):
    """A target value of a metric; the report shows the budget that reaches it.

    Attributes:
        metric: Name of the metric.
        value: Value to reach.
    """

    metric: str
    value: float = Field(allow_inf_nan=False)


class SearchSpec(_Spec):
    """A searcher, which replaces the expansion of grids.

    Attributes:
        name: Name of a searcher of `ray.tune`, such as `optuna`.
        metric: The objective; the searcher gets its mean over the seeds. Optuna takes a list of
            several.
        goal: Direction of the objective, or a list for several; the metrics' declared goals if
            left out.
        samples: Number of suggestions in all.
        options: Keyword arguments of the searcher.
    """

    name: str
    metric: str | list[str]
    goal: Goal | list[Goal] | None = None
    samples: int = Field(ge=1)
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _matching(self) -> SearchSpec:
        if not self.metrics or len(set(self.metrics)) < len(self.metrics):
            raise ValueError(f"metric: every objective must stand once, got {self.metric}")
        if self.goal is not None and len(_listed(self.goal)) != len(self.metrics):
            raise ValueError(
                f"goal: give one for each of the {len(self.metrics)} objectives, got {self.goal}"
            )
        return self

    @property
    def metrics(self) -> list[str]:
        """All objectives."""
        return _listed(self.metric)

    @property
    def goals(self) -> list[str | None]:
        """The goal of each objective, as far as the study gives it."""
        return [None] * len(self.metrics) if self.goal is None else [*_listed(self.goal)]


class SchedulerSpec(_Spec):
    """A scheduler that stops trials early.

    Attributes:
        name: Name of a scheduler of `ray.tune`, such as `asha`.
        metric: Metric that decides which trials stop.
        goal: Direction of the metric; its declared goal if left out.
        options: Keyword arguments of the scheduler.
    """

    name: str
    metric: str
    goal: Goal | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """The metric alone."""
        return [self.metric]

    @property
    def goals(self) -> list[str | None]:
        """The goal alone, if the study gives it."""
        return [self.goal]


class PictureSpec(_Spec):
    """A picture of metrics against another metric of the same records.

    Attributes:
        against: Metric on the horizontal axis, such as the number of an epoch.
        metrics: Metrics on the vertical axis.
    """

    against: str
    metrics: Names = Field(min_length=1)


class ReportSpec(_Spec):
    """Contents of the report. Settings stand by their dotted names.

    Attributes:
        rows: Settings that make a table's rows: the methods that are compared.
        columns: Settings that make a table's columns.
        by: Settings with a separate table and pictures for each value.
        metrics: Metrics to show; the first one is the study's main metric.
        targets: Target values; the report shows the budgets that reach them.
        pictures: Pictures of metrics against another metric of the same records.
        baseline: Rows with which every other row is compared, one or a list of them: values of
            the row settings or, of a single row setting, the value alone.
        reference: Path of a reference table, relative to the study file.
    """

    rows: Names | None = None
    columns: Names | None = None
    by: Names | None = None
    metrics: Names | None = None
    targets: list[Target] = Field(default_factory=list)
    pictures: list[PictureSpec] = Field(default_factory=list)
    baseline: list[dict[str, Any]] = Field(default_factory=list)
    reference: str | None = None

    @field_validator("baseline", mode="before")
    @classmethod
    def _baselines(cls, value: Any, info: ValidationInfo) -> Any:
        rows = info.data.get("rows") or []
        found = value if isinstance(value, list) else [] if value is None else [value]
        if len(rows) != 1 and not all(isinstance(entry, Mapping) for entry in found):
            raise ValueError(
                "without a single setting in rows, write a row as {setting: value, ...}"
            )
        return [e if isinstance(e, Mapping) else {rows[0]: e} for e in found]

    def main_metric(self, goals: Mapping[str, str | None]) -> str | None:
        """The metric of "best so far": the first shown, else the first declared with a goal."""
        if self.metrics:
            return self.metrics[0]
        return next((name for name, goal in goals.items() if goal and "*" not in name), None)


# A user, password or token before the host of an address.
_CREDENTIALS = re.compile(r"://[^/@]+@")
_SECRET = re.compile(r"key|token|password|secret", re.IGNORECASE)


class _ServiceSpec(_Spec):
    """Options of a tracking service; secrets are refused.

    Attributes:
        variables: Environment variables for the service's secrets.
    """

    variables: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _no_secrets(cls, value: Any) -> Any:
        for name, entry in value.items() if isinstance(value, Mapping) else ():
            if _SECRET.search(str(name)) and str(name) not in cls.model_fields:
                raise ValueError(
                    f"{name!r} cannot stand in a study, which is stored and shown; "
                    f"keys come from the environment alone ({cls.variables})"
                )
            if isinstance(entry, str) and _CREDENTIALS.search(entry):
                raise ValueError(
                    f"{name!r} holds a user or password, and a study is stored and shown; "
                    f"they come from the environment alone ({cls.variables})"
                )
        return value


class MlflowSpec(_ServiceSpec):
    """Logs in MLflow: a run for each trial.

    Attributes:
        tracking_uri: Address of the store: a server, or a database such as `sqlite:///mlflow.db`.
            If left out, `MLFLOW_TRACKING_URI` or else MLflow's default.
        registry_uri: Address of the model registry, if it differs from the store's.
        experiment_name: Name of MLflow's experiment; the study's name if left out.
        tags: Tags of every run.
    """

    variables = "MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"

    tracking_uri: str | None = None
    registry_uri: str | None = None
    experiment_name: str | None = None
    tags: dict[str, str] = Field(default_factory=dict)


class WandbSpec(_ServiceSpec):
    """Logs in Weights & Biases: a run for each trial.

    Attributes:
        project: Project of the runs; the study's name if left out.
        entity: User or team that owns the project.
        group: Group of the runs; the study's name if left out.
        job_type: Job type of the runs.
        notes: Notes on every run.
        tags: Tags of every run.
        excludes: Metrics and settings that are not logged.
        upload_timeout: Longest time in seconds that the end of the study waits for uploads.
    """

    variables = "WANDB_API_KEY"

    project: str | None = None
    entity: str | None = None
    group: str | None = None
    job_type: str | None = None
    notes: str | None = None
    tags: Names = Field(default_factory=list)
    excludes: Names = Field(default_factory=list)
    upload_timeout: int = Field(default=300, ge=1)


class TrackingSpec(_Spec):
    """Logs for other programs; they are not part of a trial's identity.

    Attributes:
        tensorboard: Write TensorBoard logs into the run folder.
        mlflow: Log to MLflow, with these options.
        wandb: Log to Weights & Biases, with these options.
    """

    tensorboard: bool = True
    mlflow: MlflowSpec | None = None
    wandb: WandbSpec | None = None


class StudySpec(_Spec):
    """A study: an experiment, the settings to try, the seeds, and what to report.

    Attributes:
        name: Name of the study and of its run folder.
        description: One paragraph, shown in the report.
        experiment: Registered name of the experiment, or `module:Class` of one without a
            registration.
        space: Settings with values, `{grid: [...]}` or `ray.tune` domains; or a list of such
            spaces, whose configurations are joined.
        exclude: Combinations of settings to leave out; a list of values means any of them.
        seeds: Number of seeds (0, 1, 2, ...), or a list of seeds.
        draws: Number of draws of random domains.
        seed: Seed of the draws.
        search: A searcher, which replaces the expansion of grids.
        scheduler: A scheduler that stops trials early.
        max_concurrent: Largest number of trials at once; as many as fit if left out.
        time_budget: Time in seconds after which the study stops as on request; the next run has the
            whole time again.
        retries: Largest number of times that a trial is started again whose process died without
            a new record. Deaths with a node are not counted. The local runner starts none again.
        runtime_env: Ray's runtime environment of the trials' processes; no secrets.
        report: Contents of the report.
        tracking: Logs for TensorBoard, MLflow and Weights & Biases.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    experiment: str
    space: dict[str, Any] | list[dict[str, Any]]
    exclude: list[dict[str, Any]] = Field(default_factory=list)
    seeds: int | list[int] = 5
    draws: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)
    search: SearchSpec | None = None
    scheduler: SchedulerSpec | None = None
    max_concurrent: int | None = Field(default=None, ge=1)
    time_budget: float | None = Field(default=None, gt=0, le=TIMEOUT_MAX)
    retries: int = Field(default=2, ge=0)
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    report: ReportSpec = Field(default_factory=ReportSpec)
    tracking: TrackingSpec = Field(default_factory=TrackingSpec)

    @field_validator("runtime_env")
    @classmethod
    def _no_secrets(cls, value: dict[str, Any]) -> dict[str, Any]:
        variables = value.get("env_vars")
        for name in variables if isinstance(variables, Mapping) else ():
            if _SECRET.search(str(name)):
                raise ValueError(
                    f"{name!r} cannot stand in a study, which is stored and shown, as Ray shows "
                    "runtime environments; set it where Ray is started on the cluster's machines"
                )
        return value

    @field_validator("seeds")
    @classmethod
    def _seeds(cls, value: int | list[int]) -> int | list[int]:
        listed = [value] if isinstance(value, int) else value
        if isinstance(value, int) and not 1 <= value <= _MOST_SEEDS:
            raise ValueError(f"a number of seeds must be 1 to {_MOST_SEEDS}, got {value}")
        if not listed:
            raise ValueError("at least one seed is needed")
        if any(seed < 0 for seed in listed):
            raise ValueError(f"seeds must not be negative, got {min(listed)}")
        repeated = sorted({seed for seed in listed if listed.count(seed) > 1})
        if repeated:
            raise ValueError(f"every seed may stand once, got {repeated[0]} more than once")
        return value

    @property
    def seed_list(self) -> list[int]:
        """All seeds."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds
