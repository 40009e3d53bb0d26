"""The format of `trial.json`, which older and newer programs share."""

import json

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
    }
    assert written[1].read_text() == json.dumps({**PLAN.as_json(), **state}, indent=1)


def test_a_trial_is_read_as_it_was_written(written):
    loaded = load_trial(written[0], PLAN.id)
    assert loaded.rows == [{"budget": 1.5, "seconds": 0.1, "test/loss": 2}]
    assert loaded.config == PLAN.config.model_dump(mode="json")


def test_files_of_older_and_newer_programs_are_read(written):
    folder, file = written
    content = json.loads(file.read_text())
    del content["stopped_by"]
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
