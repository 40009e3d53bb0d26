"""The format of `trial.json`, which older and newer programs share."""

import errno
import json
import os
from pathlib import Path

import pytest

import modicum as md
from modicum.planning.trial_plan import plan_trial
from modicum.run_folder.trial_record import TrialRecord, load_trial, write_trial
from modicum.storage import StorageFolder
from toys import Descent, DescentConfig

PLAN = plan_trial(Descent(), DescentConfig(rate=0.25), 3, {"data": "abc"})


@pytest.fixture
def written(tmp_path):
    """The run folder and the `trial.json` of a trial with one record."""
    folder = StorageFolder(tmp_path)
    record = TrialRecord.pending(PLAN)
    record.rows = [{"budget": 1.5, "seconds": 0.1, "test/loss": 2}]
    write_trial(folder, record)
    return folder, tmp_path / "trials" / PLAN.id / "trial.json"


def test_the_file_has_the_plan_then_the_state(written):
    state = {
        "status": "pending",
        "attempt": -1,
        **dict.fromkeys(("commit", "host", "started", "ended", "error", "stopped_by")),
        **dict.fromkeys(("checkpoint", "best_checkpoint", "best_score")),
        "records": 1,
    }
    assert written[1].read_text() == json.dumps({**PLAN.as_json(), **state}, indent=1)


def test_a_trial_is_read_as_it_was_written(written):
    loaded = load_trial(written[0], PLAN.id)
    assert loaded.rows == [{"budget": 1.5, "seconds": 0.1, "test/loss": 2}]
    assert loaded.config == PLAN.config.model_dump(mode="json")


def test_files_of_older_and_newer_programs_are_read(written):
    folder, file = written
    content = json.loads(file.read_text())
    del content["stopped_by"], content["records"]
    file.write_text(json.dumps({**content, "best_score": -3, "later": {"more": 1}, "rows": "odd"}))
    loaded = load_trial(folder, PLAN.id)
    assert (loaded.stopped_by, len(loaded.rows)) == (None, 1)
    assert repr(loaded.best_score) == "-3"


@pytest.mark.parametrize(
    ("field", "value"), [("status", "odd"), ("seed", "many"), ("attempt", None), ("config", [])]
)
def test_a_damaged_file_is_named(written, field, value):
    folder, file = written
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(md.InputError, match=rf"{PLAN.id}: broken records or state \({field}"):
        load_trial(folder, PLAN.id)


def test_a_finished_trial_has_all_its_records(written):
    folder, file = written
    file.write_text(json.dumps({**json.loads(file.read_text()), "status": "finished"}))
    assert len(load_trial(folder, PLAN.id).rows) == 1
    file.with_name("records.jsonl").write_text("")
    with pytest.raises(md.InputError, match="0 of 1 records"):
        load_trial(folder, PLAN.id)


def traced(monkeypatch):
    """Calls of fsync, with the path, and of replace, with the target, in their order."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def tell_fsync(descriptor):
        fsync(descriptor)
        calls.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))

    def tell_replace(source, target):
        replace(source, target)
        calls.append(("replace", str(target)))

    monkeypatch.setattr(os, "fsync", tell_fsync)
    monkeypatch.setattr(os, "replace", tell_replace)
    return calls


def test_all_of_a_trial_is_on_the_disk_before_its_status_says_so(tmp_path, monkeypatch):
    """Each file is there before its name, and its name before the status, whose name is last."""
    folder = StorageFolder(tmp_path)
    record = TrialRecord.pending(PLAN)
    record.rows = [{"budget": 1.5, "seconds": 0.1, "test/loss": 2}]
    record.checkpoint = f"checkpoints/{PLAN.id}-0/checkpoint_000000"
    weights = tmp_path / record.checkpoint / "deep" / "weights"
    weights.parent.mkdir(parents=True)
    weights.write_text("1")
    calls = traced(monkeypatch)
    record.status = "running"
    write_trial(folder, record)
    assert "fsync" not in {kind for kind, _ in calls}
    calls.clear()
    record.status = "finished"
    write_trial(folder, record)
    place = tmp_path / "trials" / PLAN.id
    records, status = (
        [
            ("fsync", f"{place / name}.{os.getpid()}.tmp"),
            ("replace", str(place / name)),
            *(("fsync", str(path)) for path in (place, place.parent, tmp_path)),
        ]
        for name in ("records.jsonl", "trial.json")
    )
    assert calls[: len(records)] == records
    assert calls[-len(status) :] == status
    saved = [path for kind, path in calls[len(records) : -len(status)] if kind == "fsync"]
    assert saved == [str(weights), *(str(p) for p in weights.parents if p.is_relative_to(tmp_path))]


def test_a_filesystem_that_cannot_sync_a_folder_is_written_all_the_same(tmp_path, monkeypatch):
    fsync = os.fsync

    def refuse_folders(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    StorageFolder(tmp_path).write_text("whole", "a", "file", durable=True)
    assert (tmp_path / "a" / "file").read_text() == "whole"
