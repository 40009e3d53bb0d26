"""Trials to run, and the identity of a trial."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from modicum.experiment.config import Config, flatten, settings_of, unflatten
from modicum.experiment.experiment import Experiment


@dataclass(frozen=True)
class TrialPlan:
    """A trial to run: everything that a worker needs besides the experiment's code.

    Attributes:
        id: Hash of the trial's identity; names the trial's folder.
        experiment: Name of the experiment.
        version: Version of the experiment.
        config: Validated settings.
        columns: Settings as results show them: flat, without inactive ones and those of groups that
            the study did not choose.
        seed: Seed of the trial.
        digests: Digests of the data that the trial reads, by role.
    """

    id: str
    experiment: str
    version: str
    config: Config
    columns: Mapping[str, Any]
    seed: int
    digests: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """Plain data, for files and for the way to another process."""
        return {**vars(self), "config": self.config.model_dump(mode="json")}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], experiment: Experiment[Any]) -> TrialPlan:
        """The inverse of `as_json`; other keys are ignored.

        Raises:
            ValidationError: The settings are not those of the experiment.
        """
        fields = {name: data[name] for name in cls.__dataclass_fields__}
        return cls(**{**fields, "config": experiment.Config.model_validate(data["config"])})


def column_value(value: Any) -> Any:
    """A setting's value as a table's key: lists and mappings, which have no hash, as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def plan_trial(
    experiment: Experiment[Any],
    config: Config,
    seed: int,
    digests: Mapping[str, str],
    hidden: Collection[str] = (),
) -> TrialPlan:
    """The trial of an experiment with a configuration and a seed.

    Its identity is the experiment's name and version, every active setting except those
    declared with `identity=False`, the seed, and the data's digests. So paths, resources and
    logging do not matter, nor does a setting that has no effect. The names in `hidden` are left out
    of the columns alone.
    """
    flat = flatten(config.model_dump(mode="json"))
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
        config=config,
        columns={n: column_value(value) for n, value in active.items() if n not in hidden},
        seed=seed,
        digests=dict(digests),
    )
