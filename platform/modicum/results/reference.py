"""Tables of published numbers, kept as YAML beside a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from modicum.errors import from_validation
from modicum.experiment.config import settings_of
from modicum.experiment.experiment import Experiment
from modicum.experiment.setting_filters import require_settings
from modicum.yaml_io import read_yaml


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ReferenceCell(_Part):
    """One published number.

    Attributes:
        where: Settings of the cell.
        metric: Metric of the cell; by default the metric of the whole table.
        mean: Published mean, on the scale of the table.
        sd: Published standard deviation, on the same scale.
        n: Number of published runs.
    """

    where: dict[str, Any]
    metric: str | None = None
    mean: float
    sd: float = Field(ge=0)
    n: int = Field(ge=1)


class NotComparable(_Part):
    """Cells whose data or features differ from the published ones.

    Attributes:
        where: Settings that the cells have in common, published or ours.
        reason: Difference in the data or features.
    """

    where: dict[str, Any]
    reason: str


class Reference(_Part):
    """A table of published numbers.

    Attributes:
        source: Publication and table.
        metric: Metric of the cells that name none.
        scale: Divisor of the published numbers (100 for percentages).
        baseline: Settings of the row against which directions are judged; empty for no
            directions.
        not_comparable: Cells that cannot match, with the reason.
        cells: Published numbers.
    """

    source: str
    metric: str | None = None
    scale: float = Field(default=1.0, gt=0)
    baseline: dict[str, Any] = Field(default_factory=dict)
    not_comparable: list[NotComparable] = Field(default_factory=list)
    cells: list[ReferenceCell]

    @model_validator(mode="after")
    def _every_cell_has_a_metric(self) -> Reference:
        if self.metric is None and any(cell.metric is None for cell in self.cells):
            raise ValueError("metric: name one here or in every cell")
        return self

    def metric_of(self, cell: ReferenceCell) -> str:
        """Metric of a cell."""
        name = cell.metric or self.metric
        assert name is not None
        return name

    @property
    def metrics(self) -> list[str]:
        """Metrics of all cells, in order."""
        return list(dict.fromkeys(map(self.metric_of, self.cells)))

    @classmethod
    def parse(cls, raw: Any, where: str) -> Reference:
        """Read a table from plain data.

        Args:
            raw: Contents of the file.
            where: Name of the file, for an error.

        Raises:
            InputError: A field is missing, unknown or wrong.
        """
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise from_validation(error, cls, where, raw) from None

    @classmethod
    def load(cls, path: Path, experiment: Experiment[Any] | None = None) -> Reference:
        """Read a table from a file, and check it against an experiment if one is given.

        Raises:
            InputError: Missing or broken file, or a setting or metric that the experiment lacks.
        """
        reference = cls.parse(read_yaml(path), str(path))
        if experiment is not None:
            for metric in reference.metrics:
                experiment.metric(metric)
            known = settings_of(experiment.Config)
            parts = [c.where for c in reference.cells]
            parts += [c.where for c in reference.not_comparable]
            for where in (*parts, reference.baseline):
                require_settings(where, known, str(path))
        return reference
