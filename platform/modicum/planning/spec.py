"""The study file: what may stand in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

_MOST_SEEDS = 10_000


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[list[str], BeforeValidator(_as_list)]


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Target(_Spec):
    """A level of a metric whose budget is asked for.

    Attributes:
        metric: The metric.
        value: The level to reach.
    """

    metric: str
    value: float = Field(allow_inf_nan=False)


class SearchSpec(_Spec):
    """A searcher in place of a grid.

    Attributes:
        name: A searcher of `ray.tune`, such as `optuna`.
        metric: The objective; its mean over the seeds is what the searcher sees.
        goal: Whether to make it large or small; the metric's own goal if left out.
        samples: Suggestions in all.
        max_concurrent: Most trials at once; as many as fit if left out.
        options: Keyword arguments of the searcher.
    """

    name: str
    metric: str
    goal: Literal["max", "min"] | None = None
    samples: int = Field(ge=1)
    max_concurrent: int | None = Field(default=None, ge=1)
    options: dict[str, Any] = Field(default_factory=dict)


class SchedulerSpec(_Spec):
    """A scheduler that stops trials early.

    Attributes:
        name: A scheduler of `ray.tune`, such as `asha`.
        metric: What it looks at.
        goal: Whether more or less of it is better; the metric's own goal if left out.
        options: Keyword arguments of the scheduler.
    """

    name: str
    metric: str
    goal: Literal["max", "min"] | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class PictureSpec(_Spec):
    """A picture of metrics against another one, within the trials.

    Attributes:
        against: The metric along the horizontal axis, such as the number of an epoch.
        metrics: The metrics along the vertical axis, which they share.
    """

    against: str
    metrics: Names = Field(min_length=1)


class ReportSpec(_Spec):
    """What the report shows. Settings by their dotted names.

    Attributes:
        rows: Settings that make a table's rows: the things compared.
        columns: Settings that make its columns.
        by: Settings that get a table and pictures of their own for each value.
        metrics: Metrics shown, the first one being the study's main one.
        targets: Levels whose budget is asked for.
        pictures: Pictures of metrics against another one, within the trials.
        baseline: Values of the row settings against which every other row is compared.
        reference: Path of a reference table, relative to the study file.
    """

    rows: Names | None = None
    columns: Names | None = None
    by: Names | None = None
    metrics: Names | None = None
    targets: list[Target] = Field(default_factory=list)
    pictures: list[PictureSpec] = Field(default_factory=list)
    baseline: dict[str, Any] | None = None
    reference: str | None = None

    def main_metric(self, goals: Mapping[str, str | None]) -> str | None:
        """The metric of "best so far": the first that is shown, else the first with a goal.

        Args:
            goals: What is asked of each metric that the experiment declares, None for nothing.
        """
        if self.metrics:
            return self.metrics[0]
        return next((name for name, goal in goals.items() if goal and "*" not in name), None)


# A user and password, or a token, before the host of an address.
_CREDENTIALS = re.compile(r"://[^/@]+@")
_SECRET = re.compile(r"key|token|password|secret", re.IGNORECASE)


class _ServiceSpec(_Spec):
    """Options of a tracking service, among them no secret."""

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
        tracking_uri: The store: a server or a database such as `sqlite:///mlflow.db`; what
            `MLFLOW_TRACKING_URI` says, or MLflow's own default, if left out.
        registry_uri: The model registry, where it is not the store.
        experiment_name: MLflow's experiment; the study's name if left out.
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
        project: Their project; the study's name if left out.
        entity: The user or team that it belongs to.
        group: What the runs are grouped under; the study's name if left out.
        job_type: Their kind of job.
        notes: A remark on every run.
        tags: Tags of every run.
        excludes: Metrics and settings that are not logged.
        upload_timeout: Seconds that the end of the study waits for uploads.
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
    """Where other programs can watch the study. No part of a trial's identity.

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
        name: Names the run folder.
        description: One paragraph, shown in the report.
        experiment: Registered name of the experiment.
        space: Settings to values, `{grid: [...]}` or `ray.tune` domains; or a list of such
            spaces, whose configurations are taken together.
        exclude: Combinations of settings to leave out; a list of values means any of them.
        seeds: How many (0, 1, 2, ...), or which.
        draws: How often random domains are drawn.
        seed: Seed of the draws.
        search: A searcher in place of exhaustive expansion.
        scheduler: A scheduler that stops trials early.
        report: What the report shows.
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
    report: ReportSpec = Field(default_factory=ReportSpec)
    tracking: TrackingSpec = Field(default_factory=TrackingSpec)

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
        """The seeds themselves."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds
