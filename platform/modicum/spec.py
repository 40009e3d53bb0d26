"""The study file: what may stand in it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

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
