"""From a run folder to one tidy table: a row per record."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from modicum.errors import InputError, reason_of
from modicum.planning.trial_plan import TrialPlan
from modicum.run_folder.trial_record import TrialState, load_trial
from modicum.storage import StorageFolder

RESULTS = "results.parquet"
_NOTE = b"modicum"
_IDENTITY = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class TrialInfo:
    """A trial of the current study, as the report lists it.

    Attributes:
        id: Its identity.
        columns: Its settings.
        seed: Its seed.
        status: `pending`, `running`, `finished`, `failed` or `stopped`.
        commit: Version of the code that ran it.
        error: One line, if it failed.
        seconds: Wall-clock time of its last start to its end; None while it runs.
        stopped_by: `scheduler` or `request`, if it was stopped.
    """

    id: str
    columns: Mapping[str, Any]
    seed: int
    status: str
    commit: str | None = None
    error: str | None = None
    seconds: float | None = None
    stopped_by: str | None = None


@dataclass(frozen=True)
class Collected:
    """Everything that a run folder says about the current study.

    Attributes:
        frame: Tidy records.
        trials: The study's trials.
        experiment: Name, version, budget unit and metrics.
        others: Number of trials in the folder that belong to earlier settings.
    """

    frame: pd.DataFrame
    trials: Sequence[TrialInfo]
    experiment: Mapping[str, Any]
    others: int


def collect(folder: StorageFolder) -> Collected:
    """Read the trials' own files, as the folder stands now.

    Raises:
        InputError: The folder holds no run.
    """
    plan = read_plan(folder)
    present = set(folder.folders("trials"))
    states = []
    for entry in plan["trials"]:
        trial = TrialPlan.from_json(entry)
        state = TrialState(trial)
        if trial.id in present and folder.exists("trials", trial.id, "trial.json"):
            state = load_trial(folder, trial.id, with_log=False)
            state.plan = trial
        states.append(state)
    others = len(present - {state.plan.id for state in states})
    return collected(states, plan["experiment"], others)


def collected(
    states: Sequence[TrialState], experiment: Mapping[str, Any], others: int
) -> Collected:
    """What trials that have been read say together; arguments as in `Collected`."""
    return Collected(_frame(states), [_info(s) for s in states], experiment, others)


def read_plan(folder: StorageFolder) -> Any:
    """The study's experiment and trials.

    Raises:
        InputError: The folder holds no run, or what stands there is no plan of one.
    """
    if not folder.exists("plan.json"):
        raise InputError(f"{folder.uri}: no run here (there is no plan.json)")
    try:
        plan = folder.read_json("plan.json")
        named = [entry["id"] for entry in plan["trials"]]
        # A trial's name becomes part of paths.
        if not all(_IDENTITY.fullmatch(name) for name in named):
            raise ValueError("a trial's name has to be 12 hexadecimal digits")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{folder.display('plan.json')}: no plan ({reason_of(error)})") from error
    return plan


def _info(state: TrialState) -> TrialInfo:
    seconds = None
    if state.started is not None and state.ended is not None:
        seconds = state.ended - state.started
    return TrialInfo(
        id=state.plan.id,
        columns=state.plan.columns,
        seed=state.plan.seed,
        status=state.status,
        commit=state.commit,
        error=state.error,
        seconds=seconds,
        stopped_by=state.stopped_by,
    )


def _frame(states: Sequence[TrialState]) -> pd.DataFrame:
    rows = [
        {
            "trial_id": state.plan.id,
            **{f"config/{name}": value for name, value in state.plan.columns.items()},
            "seed": state.plan.seed,
            "status": state.status,
            "record": index,
            **row,
        }
        for state in states
        for index, row in enumerate(state.rows)
    ]
    frame = pd.DataFrame(rows)
    settings = [name for name in frame.columns if name.startswith("config/")]
    others = [name for name in frame.columns if name not in {"trial_id", *settings}]
    frame = frame.reindex(columns=["trial_id", *settings, *others])
    for name in frame.columns:
        kinds = {type(value) for value in frame[name] if value is not None and value == value}
        if len(kinds) > 1 and not kinds <= {int, float}:
            frame[name] = [None if v is None or v != v else str(v) for v in frame[name]]
    return frame


def write_parquet(folder: StorageFolder, collected: Collected) -> None:
    """Write `results.parquet`, with the trials' states in its metadata."""
    table = pa.Table.from_pandas(collected.frame, preserve_index=False)
    note = {
        "experiment": collected.experiment,
        "others": collected.others,
        "trials": [vars(info) for info in collected.trials],
    }
    table = table.replace_schema_metadata({_NOTE: json.dumps(note).encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    folder.write_bytes(buffer.getvalue(), RESULTS)


def read_parquet(folder: StorageFolder) -> Collected | None:
    """The consolidated results; None if there are none or the run has gone on since."""
    if not folder.exists(RESULTS):
        return None
    table = pq.read_table(io.BytesIO(folder.read_bytes(RESULTS)))
    note = json.loads((table.schema.metadata or {}).get(_NOTE, b"null"))
    if note is None:
        return None
    planned = [entry["id"] for entry in read_plan(folder)["trials"]]
    if planned != [entry["id"] for entry in note["trials"]]:
        return None
    if any(entry["status"] in {"pending", "running"} for entry in note["trials"]):
        return None
    infos = [TrialInfo(**entry) for entry in note["trials"]]
    return Collected(table.to_pandas(), infos, note["experiment"], note["others"])
