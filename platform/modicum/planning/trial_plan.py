"""What makes a trial the same trial."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modicum.experiment.config import Config, flatten, settings_of, unflatten
from modicum.experiment.experiment import Experiment


@dataclass(frozen=True)
class TrialPlan:
    """One trial to run: everything that a worker needs besides the experiment's code.

    Attributes:
        id: Hash of the identity; names the trial's folder.
        experiment: Name of the experiment.
        version: Version of the experiment.
        config: The whole resolved configuration, nested.
        columns: The configuration as results show it: flat, inactive settings left out.
        seed: Seed of the trial.
        digests: Digests of the data it reads, by role.
    """

    id: str
    experiment: str
    version: str
    config: Mapping[str, Any]
    columns: Mapping[str, Any]
    seed: int
    digests: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """Plain data, for `trials/<id>/trial.json`."""
        return {
            "id": self.id,
            "experiment": self.experiment,
            "version": self.version,
            "config": dict(self.config),
            "columns": dict(self.columns),
            "seed": self.seed,
            "digests": dict(self.digests),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrialPlan:
        """The inverse of `as_json`; other keys are ignored."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__})


def column_value(value: Any) -> Any:
    """A setting's value as a table's key: lists and mappings, which have no hash, as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def plan_trial(
    experiment: Experiment[Any], config: Config, seed: int, digests: Mapping[str, str]
) -> TrialPlan:
    """The trial of an experiment with a configuration and a seed.

    Its identity is the experiment's name and version, every active setting except those
    declared with `identity=False`, the seed, and the data's digests. So paths, resources and
    logging do not matter, nor does a setting that has no effect.
    """
    full = config.model_dump(mode="json")
    flat = flatten(full)
    settings = settings_of(type(config))
    active = {
        name: value
        for name, value in flat.items()
        if name not in settings or settings[name].active(flat)
    }
    identity = {
        name: value
        for name, value in active.items()
        if name not in settings or settings[name].identity
    }
    digest = hashlib.sha256(
        json.dumps(
            [experiment.name, experiment.version, unflatten(identity), seed, dict(digests)],
            sort_keys=True,
        ).encode()
    ).hexdigest()
    return TrialPlan(
        id=digest[:12],
        experiment=experiment.name,
        version=experiment.version,
        config=full,
        columns={name: column_value(value) for name, value in active.items()},
        seed=seed,
        digests=dict(digests),
    )
