import shutil

import pytest

import modicum as md
from modicum.execution.messages import EndMessage, RecordMessage
from modicum.execution.recorder import Recorder
from modicum.planning.trial_plan import plan_trial
from modicum.run_folder.trial_record import load_trial
from modicum.storage import StorageFolder
from toys import Descent, DescentConfig

PLAN = plan_trial(Descent(), DescentConfig(), 0, {})


def message(index, loss=1.0, log=b""):
    return RecordMessage(index, 10.0 * (index + 1), {"test/loss": loss}, 0.5, log)


def recorder(tmp_path, **options):
    made = Recorder(StorageFolder(tmp_path), Descent(), **options)
    made.add([PLAN])
    return made


def end():
    return EndMessage("finished", log=b"bye\n")


def test_a_finished_trial_is_taken_over_and_not_run_again(tmp_path):
    first = recorder(tmp_path)
    first.start(PLAN.id)
    first.record(PLAN.id, message(0, log=b"hello\n"))
    first.end(PLAN.id, end())
    again = recorder(tmp_path)
    assert again.unfinished() == []
    assert again.trials[PLAN.id].value("test/loss") == 1.0
    assert (tmp_path / "trials" / PLAN.id / "log.txt").read_text() == "hello\nbye\n"


def test_a_half_finished_trial_without_checkpoint_starts_afresh(tmp_path):
    first = recorder(tmp_path)
    first.start(PLAN.id)
    first.record(PLAN.id, message(0))
    again = recorder(tmp_path)
    assert again.unfinished() == [PLAN]
    assert again.trials[PLAN.id].rows == []
    assert again.start(PLAN.id).attempt == 1


def test_a_checkpoint_that_is_gone_is_not_resumed_from(tmp_path):
    first = recorder(tmp_path)
    first.start(PLAN.id)
    first.record(PLAN.id, message(0))
    first.saved_checkpoint(PLAN.id, "checkpoints/x/checkpoint_000000")
    assert recorder(tmp_path).trials[PLAN.id].checkpoint is None
    place = tmp_path / "checkpoints/x/checkpoint_000000"
    place.mkdir(parents=True)
    # A folder without its note is what a killed deletion leaves behind.
    assert recorder(tmp_path).trials[PLAN.id].checkpoint is None
    note = place / "modicum_checkpoint.json"
    # An empty note is what a power failure leaves behind; of the two records one is missing.
    for broken in ("", "{}", '{"records": "all"}', '{"records": 2}'):
        note.write_text(broken)
        assert recorder(tmp_path).trials[PLAN.id].checkpoint is None
    note.write_text('{"records": 1}')
    assert recorder(tmp_path).trials[PLAN.id].checkpoint == "checkpoints/x/checkpoint_000000"
    assert len(recorder(tmp_path).trials[PLAN.id].rows) == 1


def test_a_record_seen_before_replaces_it_and_what_follows(tmp_path):
    one = recorder(tmp_path)
    one.start(PLAN.id)
    for index in range(3):
        one.record(PLAN.id, message(index, loss=float(index)))
    one.record(PLAN.id, message(1, loss=9.0))
    assert [row["test/loss"] for row in one.trials[PLAN.id].rows] == [0.0, 9.0]


def test_files_of_ended_trials_are_complete_at_the_end_of_the_block(tmp_path):
    plans = [plan_trial(Descent(), DescentConfig(), seed, {}) for seed in range(40)]
    with recorder(tmp_path) as one:
        one.add(plans)
        for plan in plans:
            one.start(plan.id)
            one.record(plan.id, message(0, loss=float(plan.seed)))
            one.end(plan.id, end())
    found = [load_trial(StorageFolder(tmp_path), plan.id) for plan in plans]
    assert {trial.status for trial in found} == {"finished"}
    assert [trial.value("test/loss") for trial in found] == [float(seed) for seed in range(40)]


def test_an_ended_trial_that_cannot_be_written_ends_the_block(tmp_path):
    one = recorder(tmp_path)
    one.start(PLAN.id)
    shutil.rmtree(tmp_path / "trials" / PLAN.id)
    (tmp_path / "trials" / PLAN.id).touch()

    def end_in_block():
        with one:
            one.end(PLAN.id, EndMessage("finished"))

    with pytest.raises(md.StorageError, match="cannot be written"):
        end_in_block()


def test_stopped_trials_stay_stopped_only_where_a_scheduler_decides(tmp_path):
    one = recorder(tmp_path)
    one.start(PLAN.id)
    one.record(PLAN.id, message(0))
    one.stop(PLAN.id)
    assert recorder(tmp_path, keep_stopped=True).unfinished() == []
    assert recorder(tmp_path).unfinished() == [PLAN]


def test_numbers_survive_the_disk_exactly(tmp_path):
    one = recorder(tmp_path)
    one.start(PLAN.id)
    one.record(PLAN.id, message(0, loss=0.1 + 0.2))
    one.end(PLAN.id, end())
    assert load_trial(StorageFolder(tmp_path), PLAN.id).value("test/loss") == 0.1 + 0.2


def test_results_of_list_settings_and_reserved_names(tmp_path):
    """A list has no hash, yet must serve as a table's row."""
    from typing import ClassVar

    import modicum as md

    class Config(md.Config):
        layers: list[int] = md.setting(description="Sizes.")

    class Listed(md.Experiment[Config]):
        name, version, budget_unit = "listed", "1", "samples"
        metrics: ClassVar = {"loss": md.Metric("Loss.", goal="min")}

        def run(self, config, trial):
            yield md.Record(budget=1, metrics={"loss": float(sum(config.layers))})

    Listed.Config = Config
    study = md.Study(Listed, {"layers": md.grid([1], [1, 2])}, seeds=2)
    results = study.run(tmp_path / "run", runner="local", quiet=True)
    assert results.table("layers", metric="loss").rows == [("[1]",), ("[1, 2]",)]
