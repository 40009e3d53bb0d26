"""Trials and records of a study, and the look-ups that every query of results starts from."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from modicum.errors import InputError, unknown_name
from modicum.experiment.metric import find_metric
from modicum.experiment.setting_filters import agrees, varying
from modicum.run_folder import provenance
from modicum.run_folder.outcomes import is_mean_of, load_outcomes
from modicum.run_folder.trial_record import TRIALS
from modicum.storage import StorageFolder

# Values of several settings, in the order of their names.
Key = tuple[Any, ...]
Where = Mapping[str, Any] | None


@dataclass(frozen=True)
class TrialInfo:
    """A trial of the study, as results list it.

    Attributes:
        id: Identity of the trial.
        columns: Settings by dotted name.
        seed: Seed of the trial.
        status: `pending`, `running`, `finished`, `failed` or `stopped`.
        commit: Version of the code that ran the trial.
        error: Error of a failed trial, in one line.
        seconds: Wall-clock time from the last start to the end; None while the trial runs.
        stopped_by: `scheduler` or `request`, for a stopped trial.
        attempt: Number of the last start, from 0; -1 before the first one.
        host: Machine that ran it.
        started: Time of the last start, in seconds since 1970.
        ended: Time of the end.
        checkpoint: Path of the last checkpoint in the run folder.
        best_checkpoint: Path of the best checkpoint by the experiment's selection metric.
    """

    id: str
    columns: Mapping[str, Any]
    seed: int
    status: str
    commit: str | None = None
    error: str | None = None
    seconds: float | None = None
    stopped_by: str | None = None
    attempt: int = -1
    host: str | None = None
    started: float | None = None
    ended: float | None = None
    checkpoint: str | None = None
    best_checkpoint: str | None = None

    @property
    def ended_early(self) -> bool:
        """True if a scheduler ended the trial."""
        return self.status == "stopped" and self.stopped_by != "request"


@dataclass(frozen=True)
class StudyRecords:
    """Trials and records of a study, as its run folder holds them.

    Attributes:
        folder: The run folder.
        frame: One row per record: `trial_id`, `config/*`, `seed`, `status`, `record`, `budget`,
            `seconds`, and the metrics by name.
        trials: Trials of the study, in the order of its plan.
        experiment: Name, version, budget unit, budget settings and metrics of the experiment.
        other_trials: Number of trials in the folder that belong to other settings, versions or
            data.
        spec: Plain contents of the study file; empty without one.
        damaged: Sentences about the damaged files that were found so far, by file or trial. A
            damaged trial counts as pending.
    """

    folder: StorageFolder
    frame: pd.DataFrame
    trials: Sequence[TrialInfo]
    experiment: Mapping[str, Any]
    other_trials: int
    spec: Mapping[str, Any]
    damaged: dict[str, str] = field(default_factory=dict)

    @property
    def budget_words(self) -> str:
        """Unit of the budget, as prose writes it."""
        return str(self.experiment["budget_unit"]).replace("_", " ")

    @cached_property
    def settings(self) -> dict[str, Mapping[str, Any]]:
        """Settings of each trial, the seed included, by the trial's identity."""
        return {trial.id: {**trial.columns, "seed": trial.seed} for trial in self.trials}

    @cached_property
    def places(self) -> Mapping[str, np.ndarray]:
        """Rows of the frame of each trial, by the trial's identity."""
        indices = self.frame.groupby("trial_id", sort=False).indices
        return {str(trial): np.asarray(rows) for trial, rows in indices.items()}

    def of_trials(self, trials: Iterable[TrialInfo]) -> pd.DataFrame:
        """Records of some trials, in the order of the frame."""
        places = [self.places[trial.id] for trial in trials if trial.id in self.places]
        return self.frame.iloc[np.sort(np.concatenate(places)) if places else []]

    @cached_property
    def varied(self) -> list[str]:
        """Settings with more than one value among the trials, in the order of the study.

        Trials in which a setting has no effect do not make it vary.
        """
        names = varying(trial.columns for trial in self.trials)
        spaces = self.spec.get("space", {})
        order = [
            name for space in (spaces if isinstance(spaces, list) else [spaces]) for name in space
        ]
        return sorted(names, key=lambda n: order.index(n) if n in order else len(order))

    @property
    def failed(self) -> list[TrialInfo]:
        """Trials that failed."""
        return [trial for trial in self.trials if trial.status == "failed"]

    def status_counts(self) -> dict[str, int]:
        """Number of trials with each status."""
        found = [trial.status for trial in self.trials]
        statuses = ("finished", "failed", "stopped", "running", "pending")
        return {status: found.count(status) for status in statuses}

    def provenance(self) -> dict[str, Any]:
        """Contents of `provenance.json`; empty if the file is missing or damaged."""
        try:
            return provenance.read(self.folder)
        except InputError as error:
            self.note_damage(provenance.FILE, f"{error}; it is left out")
            return {}

    def note_damage(self, name: str, sentence: str) -> None:
        """Warn of a damaged file or trial, and keep the sentence for reports."""
        if name not in self.damaged:
            self.damaged[name] = sentence
            warnings.warn(sentence, stacklevel=2)

    def metric_info(self, name: str) -> Mapping[str, Any]:
        """Declaration of a metric.

        Raises:
            InputError: The experiment declares no such metric.
        """
        declared: Mapping[str, Mapping[str, Any]] = self.experiment["metrics"]
        return find_metric(declared, name)

    def goal(self, metric: str, needed_for: str) -> str:
        """`max` or `min`, for a metric that must have a goal.

        Raises:
            InputError: Unknown metric, or one without a goal.
        """
        goal = self.metric_info(metric)["goal"]
        if goal is None:
            raise InputError(f"metric: {metric!r} has no goal, {needed_for} needs one")
        return str(goal)

    def check_settings(self, names: Iterable[str]) -> None:
        """Refuse names that are settings of no trial.

        Raises:
            InputError: Unknown setting.
        """
        known = {name for trial in self.trials for name in trial.columns} | {"seed"}
        for name in names:
            if name not in known:
                raise unknown_name("setting", name, known)

    @cached_property
    def _outcomes(self) -> dict[str, Mapping[str, np.ndarray]]:
        return {}

    def outcomes(self, trial_id: str) -> Mapping[str, np.ndarray]:
        """Outcome of each test row of a trial, by metric; empty if there are none to be read."""
        if trial_id not in self._outcomes:
            try:
                found = load_outcomes(self.folder, (TRIALS, trial_id))
            except InputError as error:
                self.note_damage(trial_id, f"{error}; intervals do without them")
                found = {}
            self._outcomes[trial_id] = found
        return self._outcomes[trial_id]

    def selected(self, where: Where = None) -> list[TrialInfo]:
        """Trials with the given settings."""
        return [trial for trial in self.trials if agrees(self.settings[trial.id], where or {})]

    def keys(self, names: Sequence[str]) -> list[Key]:
        """Distinct values of settings, in the order of the trials."""
        found = (tuple(self.settings[trial.id].get(n) for n in names) for trial in self.trials)
        return list(dict.fromkeys(found))

    def combinations(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Distinct values of settings, each with the settings' names."""
        return [dict(zip(names, key, strict=True)) for key in self.keys(names)]


def final_values(
    records: StudyRecords, metric: str, where: Where = None
) -> list[tuple[Mapping[str, Any], float]]:
    """Settings and final value of every finished trial: the last record that has the metric."""
    records.check_settings(where or {})
    finished = [trial for trial in records.selected(where) if trial.status == "finished"]
    found = last_values(records, metric, finished)
    return [(records.settings[trial.id], value) for trial, value in found]


def last_values(
    records: StudyRecords, metric: str, trials: Sequence[TrialInfo]
) -> list[tuple[TrialInfo, float]]:
    """Trials that have a metric, with its value in the last record that has it."""
    records.metric_info(metric)
    frame = records.frame
    if metric not in frame:
        return []
    wanted = frame["trial_id"].isin([trial.id for trial in trials]) & frame[metric].notna()
    last = frame[wanted].groupby("trial_id", sort=False)[metric].last()
    return [(trial, float(last[trial.id])) for trial in trials if trial.id in last.index]


def values_by_seed(
    records: StudyRecords, metric: str, names: Sequence[str], where: Where = None
) -> dict[Key, dict[int, float]]:
    """Final values by seed, for each cell of the settings `names`."""
    records.check_settings(names)
    cells: dict[Key, dict[int, float]] = {}
    for settings, value in final_values(records, metric, where):
        cell = cells.setdefault(tuple(settings.get(name) for name in names), {})
        if settings["seed"] in cell:
            loose = [n for n in records.varied if n not in names and n not in (where or {})]
            raise InputError(
                f"table: cells would mix different values of {', '.join(loose)}; "
                "name it in rows, columns or where"
            )
        cell[settings["seed"]] = value
    return cells


def outcomes_by_seed(
    records: StudyRecords, metric: str, names: Sequence[str], where: Where = None
) -> dict[Key, dict[int, np.ndarray]]:
    """Outcomes of test rows by seed, of the final values, for each cell of the settings `names`.

    Only seeds whose trials recorded outcomes are in a cell.
    """
    if not records.metric_info(metric).get("outcomes"):
        return {}
    cells = values_by_seed(records, metric, names, where)
    found: dict[Key, dict[int, np.ndarray]] = {}
    for trial in records.selected(where):
        settings = records.settings[trial.id]
        key = tuple(settings.get(name) for name in names)
        if trial.seed not in cells.get(key, {}):
            continue
        outcomes = records.outcomes(trial.id).get(metric)
        # A later record without outcomes leaves those of an earlier one.
        if outcomes is not None and is_mean_of(outcomes, cells[key][trial.seed]):
            found.setdefault(key, {})[trial.seed] = outcomes
    return found


def stacked(outcomes: Mapping[int, np.ndarray], seeds: Sequence[int]) -> np.ndarray | None:
    """Outcomes as an array, a row for each seed and a column for each test row.

    None unless all seeds have outcomes, of equally many test rows.
    """
    if not seeds or any(seed not in outcomes for seed in seeds):
        return None
    if len({len(outcomes[seed]) for seed in seeds}) > 1:
        return None
    return np.stack([outcomes[seed] for seed in seeds]).astype(float)
