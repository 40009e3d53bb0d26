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
    found = json.loads(written[1].read_text())
    assert list(found.items()) == list({**PLAN.as_json(), **state}.items())


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
    folders = [("fsync", str(path)) for path in (place, place.parent, tmp_path)]
    records = [("fsync", str(place / "records.jsonl")), *folders]
    status = [
        ("fsync", f"{place / 'trial.json'}.{os.getpid()}.tmp"),
        ("replace", str(place / "trial.json")),
        folders[0],  # Those above know this folder already.
    ]
    assert calls[: len(records)] == records
    assert calls[-len(status) :] == status
    saved = [path for kind, path in calls[len(records) : -len(status)] if kind == "fsync"]
    assert saved == [str(weights), *(str(p) for p in weights.parents if p.is_relative_to(tmp_path))]


def test_records_are_appended_unless_one_was_replaced(tmp_path):
    folder, record = StorageFolder(tmp_path), TrialRecord.pending(PLAN)
    record.status = "running"
    file = tmp_path / "trials" / PLAN.id / "records.jsonl"
    for index in (0, 1, 2, 3, 2, 3):
        inode = file.stat().st_ino if file.exists() else None
        record.put(index, {"budget": index, "seconds": 0.1, "of": len(record.rows)})
        write_trial(folder, record)
        assert load_trial(folder, PLAN.id).rows == record.rows
        rewritten = file.stat().st_ino != inode
        assert rewritten == (len(record.rows) == 1 or record.rows[-1]["of"] > index)


def test_a_line_that_a_killed_driver_left_half_written_is_no_damage(tmp_path):
    folder, record = StorageFolder(tmp_path), TrialRecord.pending(PLAN)
    record.status = "running"
    record.put(0, {"budget": 1, "seconds": 0.1})
    write_trial(folder, record)
    file = tmp_path / "trials" / PLAN.id / "records.jsonl"
    with file.open("a") as half:
        half.write('{"budget": 2, "sec')
    again = load_trial(folder, PLAN.id)
    assert again.rows == record.rows
    # The next process replaces what was left.
    again.put(1, {"budget": 3, "seconds": 0.2})
    write_trial(folder, again)
    assert [row["budget"] for row in load_trial(folder, PLAN.id).rows] == [1, 3]


def test_a_filesystem_that_cannot_sync_a_folder_is_written_all_the_same(tmp_path, monkeypatch):
    fsync = os.fsync

    def refuse_folders(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    StorageFolder(tmp_path).write_text("whole", "a", "file", durable=True)
    assert (tmp_path / "a" / "file").read_text() == "whole"
