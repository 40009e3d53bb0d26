"""Records of a study, read from its run folder and kept in `results.parquet`."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from modicum.errors import InputError
from modicum.experiment.setting_filters import agrees
from modicum.results.records import StudyRecords, TrialInfo
from modicum.run_folder.plan_file import read_plan
from modicum.run_folder.trial_record import (
    TrialRecord,
    is_recorded,
    is_too_large,
    load_trial,
    trial_stamps,
)
from modicum.storage import StorageFolder
from modicum.yaml_io import parse_yaml

RESULTS = "results.parquet"
_METADATA = b"modicum"


def load_records(location: str | Path) -> StudyRecords:
    """Read a run folder, also while its study is running; refuse a folder without a run."""
    folder = StorageFolder(location)
    return read_parquet(folder) or collect(folder)


def consolidate(folder: StorageFolder) -> StudyRecords:
    """Gather the files of all trials into `results.parquet`, with the trials in its metadata."""
    records = collect(folder)
    table = pa.Table.from_pandas(records.frame, preserve_index=False)
    metadata = {
        "experiment": records.experiment,
        "others": records.other_trials,
        "trials": [vars(info) for info in records.trials],
    }
    table = table.replace_schema_metadata({_METADATA: json.dumps(metadata).encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    folder.write_bytes(buffer.getvalue(), RESULTS)
    return records


def collect(folder: StorageFolder) -> StudyRecords:
    """Read the files of every trial; a damaged trial counts as pending, with a warning.

    Raises:
        InputError: The folder holds no run.
    """
    plan = read_plan(folder)
    present = set(folder.folders("trials"))
    trials = []
    damaged = {}
    for entry in plan["trials"]:
        trial = TrialRecord.model_validate(entry)
        if trial.id in present and is_recorded(folder, trial.id):
            try:
                trial = load_trial(folder, trial.id).with_plan(trial)
            except InputError as error:
                damaged[trial.id] = f"{error}; the trial is left out until the study runs again"
        trials.append(trial)
    records = gather(folder, trials, plan["experiment"], present)
    for trial_id, sentence in damaged.items():
        records.note_damage(trial_id, sentence)
    return records


def gather(
    folder: StorageFolder,
    trials: Sequence[TrialRecord],
    experiment: Mapping[str, Any],
    present: set[str],
) -> StudyRecords:
    """Put trials that have been read together.

    The identities `present` are those of all trials in the folder, other studies' included.
    """
    names = [field.name for field in fields(TrialInfo)]
    return StudyRecords(
        folder=folder,
        frame=_frame(trials),
        trials=[TrialInfo(**{n: getattr(trial, n) for n in names}) for trial in trials],
        experiment=experiment,
        other_trials=len(present - {trial.id for trial in trials}),
        spec=_study_file(folder),
    )


def read_parquet(folder: StorageFolder) -> StudyRecords | None:
    """Read `results.parquet`; None if it is missing, damaged or older than the trials."""
    if not folder.exists(RESULTS):
        return None
    written = folder.filesystem.get_file_info(folder.path(RESULTS)).mtime_ns
    if any(t > written for files in trial_stamps(folder).values() for t, _ in files.values()):
        return None
    content = io.BytesIO(folder.read_bytes(RESULTS))
    try:
        table = pq.read_table(content, page_checksum_verification=True)
        metadata = json.loads(table.schema.metadata[_METADATA])
        trials = [TrialInfo(**entry) for entry in metadata["trials"]]
        experiment, others = metadata["experiment"], metadata["others"]
        frame = table.to_pandas()
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return None
    planned = [entry["id"] for entry in read_plan(folder)["trials"]]
    if planned != [t.id for t in trials] or {"pending", "running"} & {t.status for t in trials}:
        return None
    return StudyRecords(folder, frame, trials, experiment, others, _study_file(folder))


def _study_file(folder: StorageFolder) -> Mapping[str, Any]:
    if not folder.exists("study.yaml"):
        return {}
    spec = parse_yaml(folder.read_bytes("study.yaml"), "study.yaml")
    if not isinstance(spec, Mapping):
        raise InputError(
            f"{folder.display('study.yaml')}: expected the fields of a study by name; "
            "`modicum run` with the study writes the file again"
        )
    return spec


def _frame(trials: Sequence[TrialRecord]) -> pd.DataFrame:
    rows = [
        {
            "trial_id": trial.id,
            **{f"config/{name}": value for name, value in trial.columns.items()},
            "seed": trial.seed,
            "status": trial.status,
            "record": index,
            **row,
        }
        for trial in trials
        for index, row in enumerate(trial.rows)
    ]
    frame = pd.DataFrame(rows)
    settings = [name for name in frame.columns if name.startswith("config/")]
    names = list(dict.fromkeys(["trial_id", *settings, *frame.columns]))
    frame = frame.reindex(columns=names)
    for name in frame.columns:
        # A column of Parquet has one type, and numbers of 64 bits.
        values = [value for value in frame[name] if value is not None and value == value]
        kinds = {type(value) for value in values}
        if (len(kinds) > 1 and not kinds <= {int, float}) or any(map(is_too_large, values)):
            frame[name] = [None if v is None or v != v else str(v) for v in frame[name]]
    return frame


def find_checkpoint(location: str, file: str, field: str, needed: str, **settings: Any) -> Path:
    """Find the folder of a saved model: the given folder, or a checkpoint of the given run.

    In a run, the finished trial with the best checkpoint by the experiment's `selection_metric`
    counts, of equal ones the first. Without such a metric it is the first finished trial that has
    a checkpoint, with its last one.

    Args:
        location: Folder of a model or of a run.
        file: Name of a file that every saved model has.
        field: Setting that an error names.
        needed: Description of the missing model, for an error.
        **settings: Settings that the trial must have.

    Raises:
        InputError: The location is neither folder, or the run has no such checkpoint.
    """
    folder = Path(location).expanduser()
    if (folder / file).is_file():
        return folder
    if not (folder / "plan.json").is_file():
        raise InputError(
            f"{field}: {location!r} is neither a saved model ({file}) nor a run (plan.json)"
        )
    records = load_records(folder)
    trials = [
        trial
        for trial in records.trials
        if trial.status == "finished" and agrees(trial.columns, settings)
    ]
    for where in best_checkpoints(records, trials):
        if (folder / where / file).is_file():
            return folder / where
    raise InputError(f"{field}: {location!r} has no {needed}")


def best_checkpoints(records: StudyRecords, trials: Sequence[TrialInfo]) -> list[str]:
    """Paths in the run folder of each trial's best checkpoint, or else its last; the best first.

    Equal ones and, at the end, those without a value of the experiment's `selection_metric` keep
    the order of the trials.
    """
    saved = [load_trial(records.folder, trial.id) for trial in trials]
    saved.sort(key=lambda t: -math.inf if t.best_score is None else t.best_score, reverse=True)
    return [where for t in saved if (where := t.best_checkpoint or t.checkpoint) is not None]
