"""MLflow's store read back through its client, the files of Weights & Biases, real resuming."""

import json
import struct
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

import modicum as md
from toys import Descent, Rising


def logged(place, trial_id):
    read = EventAccumulator(str(Path(place) / "tensorboard" / trial_id)).Reload()
    return [(e.step, float(e.tensor_proto.float_val[0])) for e in read.Tensors("test/loss")]


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["local", "ray"])
def test_a_trial_resumed_from_its_checkpoint_has_every_point_once(tmp_path, runner, ray_cluster):
    """It fails at step 3 of 5, and goes on there; its loss is the number of the step."""
    space = {"steps": 5, "checkpoints": True, "marker": str(tmp_path / "marker")}
    study = md.Study(Rising, space, seeds=1)
    assert study.run(tmp_path / "run", runner=runner, quiet=True).failed
    trial_id = study.trials[0].id
    assert logged(tmp_path / "run", trial_id) == [(step, float(step)) for step in range(3)]
    (tmp_path / "marker").touch()
    assert not study.run(tmp_path / "run", runner=runner, quiet=True).failed
    assert logged(tmp_path / "run", trial_id) == [(step, float(step)) for step in range(5)]


@pytest.mark.slow
def test_more_seeds_leave_the_logs_that_are_there_as_they_are(tmp_path, ray_cluster):
    def files():
        return {p: p.read_bytes() for p in (tmp_path / "tensorboard").rglob("events*")}

    md.Study(Descent, {"steps": 3}, seeds=2).run(tmp_path, quiet=True)
    before = files()
    md.Study(Descent, {"steps": 3}, seeds=3).run(tmp_path, quiet=True)
    after = files()
    assert len(before) == 2
    assert len(after) == 3
    assert before.items() <= after.items()


def wandb_records(path):
    """Records of an offline run: LevelDB's log format after seven bytes of the file's own.

    Blocks of 32 KiB; a piece has a checksum (4 bytes), a length (2) and a kind (1: whole, 2:
    first, 3: middle, 4: last).
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, pieces = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        piece = data[place + 7 : place + 7 + length]
        place += 7 + length
        pieces = piece if kind in (1, 2) else pieces + piece
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(pieces)
            yield record


@pytest.mark.slow
def test_weights_and_biases_offline(tmp_path, monkeypatch, ray_cluster):
    """A run for each trial, with its settings and its history; the key is in no file that Ray
    or the run folder keeps, the runtime environments of Ray's logs included.
    """
    pytest.importorskip("wandb")
    import ray

    secret = "k3y" * 13 + "x"
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", secret)
    tracking = {"wandb": {"project": "tried", "tags": ["toy"]}}
    study = md.Study(Descent, {"steps": 2, "rate": 0.25}, seeds=1, tracking=tracking)
    results = study.run(tmp_path / "run", quiet=True)
    files = list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert [file.stem[-12:] for file in files] == [plan.id for plan in study.trials]
    settings, history = {}, []
    for record in wandb_records(files[0]):
        for entry in record.run.config.update:
            settings[entry.key] = json.loads(entry.value_json)
        if record.run.project:
            assert (record.run.project, list(record.run.tags)) == ("tried", ["toy"])
        if record.history.item:
            row = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
            history.append((json.loads(row["_step"]), json.loads(row["test/loss"])))
    assert (settings["rate"], settings["method"], settings["seed"]) == (0.25, "fast", 0)
    losses = results.frame["test/loss"].tolist()
    assert history == [(10, losses[0]), (20, losses[1])]
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    for place in (tmp_path, session):
        for path in place.rglob("*"):
            if path.is_file():
                assert secret.encode() not in path.read_bytes(), path


@pytest.mark.slow
def test_mlflow_has_settings_seed_and_metrics_against_budget(tmp_path):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    store = f"sqlite:///{tmp_path}/mlflow.db"
    tracking = {"tensorboard": False, "mlflow": {"tracking_uri": store, "tags": {"who": "me"}}}
    study = md.Study(
        Descent, {"steps": 2, "fail_seed": 1}, seeds=2, name="tracked", tracking=tracking
    )
    results = study.run(tmp_path / "run", runner="local", quiet=True)
    client = MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("tracked").experiment_id])
    by_seed = {run.data.params["seed"]: run for run in runs}
    assert {seed: run.info.status for seed, run in by_seed.items()} == {
        "0": "FINISHED",
        "1": "FAILED",
    }
    run = by_seed["0"]
    assert run.data.params.keys() == {*study.trials[0].columns, "seed"}
    assert (run.data.params["rate"], run.data.tags["who"]) == ("0.5", "me")
    history = client.get_metric_history(run.info.run_id, "test/loss")
    losses = results.frame[results.frame["seed"] == 0]["test/loss"].tolist()
    assert [(entry.step, entry.value) for entry in history] == [(10, losses[0]), (20, losses[1])]


@pytest.mark.slow
def test_a_service_that_fails_costs_no_trial(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    store = tmp_path / "mlflow.db"
    lost: list[str] = []

    class Unplugging(Descent):
        """The store vanishes while the first trial runs."""

        def run(self, config, trial):
            for record in super().run(config, trial):
                yield record
                if not lost:
                    lost.append(trial.id)
                    store.unlink()
                    store.mkdir()

    study = md.Study(
        Unplugging,
        {"steps": 3},
        seeds=2,
        tracking={"tensorboard": False, "mlflow": {"tracking_uri": f"sqlite:///{store}"}},
    )
    with pytest.warns(UserWarning, match=r"tracking\.mlflow: nothing more is logged"):
        results = study.run(tmp_path / "run", runner="local", quiet=True)
    assert [trial.status for trial in results.trials] == ["finished"] * 2
