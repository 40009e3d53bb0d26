"""Logs for TensorBoard, read back through its own readers, and what tracking refuses."""

import os
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import (
    SESSION_END_INFO_TAG,
    SESSION_START_INFO_TAG,
    parse_session_end_info_plugin_data,
    parse_session_start_info_plugin_data,
)

import modicum as md
from modicum.execution.messages import EndMessage, RecordMessage
from modicum.execution.recorder import Recorder
from modicum.planning.trial_plan import plan_trial
from modicum.storage import StorageFolder
from modicum.tracking.listener import Tracking
from modicum.tracking.tensorboard import TensorBoard
from modicum.tracking.tracker import step_of
from toys import Descent, DescentConfig

END = EndMessage("finished")
PLAN = plan_trial(Descent(), DescentConfig(rate=0.25), 3, {})


def recorder(place):
    folder = StorageFolder(place)
    made = Recorder(folder, Descent(), listeners=[Tracking([TensorBoard(folder)])])
    made.add([PLAN])
    return made


def message(index, loss, budget=None):
    spent = 10.0 * (index + 1) if budget is None else budget
    return RecordMessage(index, spent, {"test/loss": loss, "start": 2.0}, 0.5, b"")


def logged(place, trial_id=PLAN.id, tag="test/loss"):
    """Steps and values as TensorBoard reads them."""
    read = EventAccumulator(str(Path(place) / "tensorboard" / trial_id)).Reload()
    return [(e.step, float(e.tensor_proto.float_val[0])) for e in read.Tensors(tag)]


def hyperparameters(place, trial_id=PLAN.id):
    read = EventAccumulator(str(Path(place) / "tensorboard" / trial_id)).Reload()
    contents = read.PluginTagToContent("hparams")
    start = parse_session_start_info_plugin_data(contents[SESSION_START_INFO_TAG])
    end = contents.get(SESSION_END_INFO_TAG)
    settings = {name: getattr(v, v.WhichOneof("kind")) for name, v in start.hparams.items()}
    return settings, None if end is None else parse_session_end_info_plugin_data(end).status


@pytest.mark.parametrize(
    ("budgets", "steps"),
    [
        ([10.0], [10]),
        ([10.0, 20.0, 20.0], [10, 20, 20]),
        ([500.0, 500.0, 500.0], [0, 1, 2]),  # epochs over the same images
        ([0.5, 1.0], [0, 1]),
    ],
)
def test_steps_are_budgets_where_those_tell_records_apart(budgets, steps):
    rows = [{"budget": budget} for budget in budgets]
    assert [step_of(rows, index) for index in range(len(rows))] == steps


def test_records_arrive_while_the_trial_runs_and_settings_with_them(tmp_path, monkeypatch):
    monkeypatch.setattr("modicum.execution.recorder.FLUSH_SECONDS", 0.0)
    one = recorder(tmp_path)
    one.start(PLAN.id)
    one.record(PLAN.id, message(0, 1.0))
    one.record(PLAN.id, message(1, 0.5))
    assert logged(tmp_path) == [(10, 1.0), (20, 0.5)]
    assert hyperparameters(tmp_path)[1] is None
    one.record(PLAN.id, message(2, 0.25))
    one.end(PLAN.id, END)
    assert logged(tmp_path) == [(10, 1.0), (20, 0.5), (30, 0.25)]
    assert logged(tmp_path, tag="budget") == [(10, 10.0), (20, 20.0), (30, 30.0)]
    settings, status = hyperparameters(tmp_path)
    assert (settings["rate"], settings["method"], settings["seed"]) == (0.25, "fast", 3)
    assert "noise" not in settings  # has no effect with this method
    assert status == 1  # STATUS_SUCCESS


def test_a_record_reported_anew_replaces_what_followed(tmp_path):
    """A process dies after three records and its trial goes on from the first one."""
    one = recorder(tmp_path)
    one.start(PLAN.id)
    for index in range(3):
        one.record(PLAN.id, message(index, float(index)))
    one.start(PLAN.id)
    one.record(PLAN.id, message(1, 9.0))
    one.end(PLAN.id, END)
    assert logged(tmp_path) == [(10, 0.0), (20, 9.0)]


def test_a_trial_that_starts_afresh_after_a_kill_has_no_point_twice(tmp_path, monkeypatch):
    monkeypatch.setattr("modicum.execution.recorder.FLUSH_SECONDS", 0.0)
    killed = recorder(tmp_path)
    killed.start(PLAN.id)
    for index in range(3):
        killed.record(PLAN.id, message(index, 7.0))
    file = next((tmp_path / "tensorboard" / PLAN.id).iterdir())
    with file.open("ab") as torn:
        torn.write(b"half a record")
    again = recorder(tmp_path)
    again.start(PLAN.id)
    for index in range(2):
        again.record(PLAN.id, message(index, 1.0))
    again.end(PLAN.id, END)
    assert logged(tmp_path) == [(10, 1.0), (20, 1.0)]


@pytest.mark.parametrize("start_again", [False, True])
def test_a_finished_trial_is_logged_once(tmp_path, start_again):
    """Taken over as it is; made up for where the run before wrote no logs."""
    folder = StorageFolder(tmp_path)
    first = recorder(tmp_path) if start_again else Recorder(folder, Descent())
    first.add([PLAN])
    first.start(PLAN.id)
    for index in range(2):
        first.record(PLAN.id, message(index, 1.0))
    first.end(PLAN.id, END)
    place = tmp_path / "tensorboard" / PLAN.id
    before = [path.read_bytes() for path in place.glob("*")]
    recorder(tmp_path)
    assert logged(tmp_path) == [(10, 1.0), (20, 1.0)]
    assert hyperparameters(tmp_path)[1] == 1
    if start_again:
        assert [path.read_bytes() for path in place.iterdir()] == before


def test_where_nothing_can_be_appended_the_log_comes_whole_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("modicum.execution.recorder.FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(StorageFolder, "local", None)
    one = recorder(tmp_path)
    one.start(PLAN.id)
    for index in range(2):
        one.record(PLAN.id, message(index, 1.0))
    assert not (tmp_path / "tensorboard").exists()
    one.end(PLAN.id, END)
    assert logged(tmp_path) == [(10, 1.0), (20, 1.0)]


def test_tensorboards_own_table_of_hyperparameters(tmp_path):
    """Both methods' settings are columns, and every trial has its last loss."""
    from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2
    from tensorboard.plugins.hparams.backend_context import Context
    from tensorboard.plugins.hparams.list_session_groups import Handler

    space = {"method": md.grid("fast", "noisy"), "steps": 2}
    study = md.Study(Descent, space, seeds=2)
    results = study.run(tmp_path / "run", runner="local", quiet=True)
    logs = str(tmp_path / "run" / "tensorboard")
    events = EventMultiplexer().AddRunsFromDirectory(logs).Reload()
    provider = MultiplexerDataProvider(events, logs)
    context, request = Context(TBContext(data_provider=provider)), RequestContext()
    metadata = context.hparams_metadata(request, "")
    experiment = context.experiment_from_metadata(
        request, "", False, metadata, provider.list_hyperparameters(request, experiment_ids=[""])
    )
    assert {"method", "noise", "seed"} <= {info.name for info in experiment.hparam_infos}
    asked = api_pb2.ListSessionGroupsRequest(
        start_index=0,
        slice_size=10,
        allowed_statuses=[api_pb2.STATUS_SUCCESS],
        col_params=[
            api_pb2.ColParams(metric=info.name)
            for info in experiment.metric_infos
            if info.name.tag == "test/loss"
        ],
    )
    groups = Handler(request, context, "", asked).run().session_groups
    found = {
        group.name: value.value
        for group in groups
        for value in group.metric_values
        if value.name.tag == "test/loss"
    }
    last = results.frame.groupby("trial_id")["test/loss"].last()
    assert found == pytest.approx(last.to_dict())


def test_logs_can_be_left_out(tmp_path):
    study = md.Study(Descent, {"steps": 1}, seeds=1, tracking={"tensorboard": False})
    study.run(tmp_path / "a", runner="local", quiet=True)
    other = md.Study(Descent, {"steps": 1}, seeds=1)
    other.run(tmp_path / "b", runner="local", quiet=True, tensorboard=False)
    assert not (tmp_path / "a" / "tensorboard").exists()
    assert not (tmp_path / "b" / "tensorboard").exists()
    assert study.trials[0].id == other.trials[0].id


def test_a_failed_trial_says_so(tmp_path):
    study = md.Study(Descent, {"steps": 2, "fail_seed": 0}, seeds=1)
    study.run(tmp_path, runner="local", quiet=True)
    assert hyperparameters(tmp_path, study.trials[0].id)[1] == 2  # STATUS_FAILURE


@pytest.mark.parametrize(
    ("tracking", "words"),
    [
        ({"wandb": {"api_key": "x"}}, "WANDB_API_KEY"),
        ({"wandb": {"api_key_file": "x"}}, "environment"),
        ({"mlflow": {"tracking_token": "x"}}, "MLFLOW_TRACKING_TOKEN"),
        ({"mlflow": {"tracking_uri": "https://me:secret@host/"}}, "user or password"),
        ({"mlflow": {"experiment": "x"}}, "experiment_name"),
        ({"wand": {}}, "allowed: mlflow, tensorboard, wandb"),
    ],
)
def test_secrets_and_unknown_options_are_refused(tracking, words):
    with pytest.raises(md.InputError, match=words) as error:
        md.Study(Descent, {}, tracking=tracking)
    assert "tracking" in str(error.value)
    assert "secret@" not in str(error.value)


def test_weights_and_biases_needs_ray(tmp_path):
    study = md.Study(Descent, {"steps": 1}, seeds=1, tracking={"wandb": {}})
    with pytest.raises(md.InputError, match=r"tracking\.wandb.*local runner"):
        study.run(tmp_path / "run", runner="local", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_missing_key_is_said_before_anything_starts(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    study = md.Study(Descent, {"steps": 1}, seeds=1, tracking={"wandb": {}})
    with pytest.raises(md.InputError, match=r"tracking\.wandb: .*WANDB_API_KEY"):
        study.run(tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "trials").exists()
