"""Requests to stop: their form, and their effect on trials and studies."""

import json
import os
import threading
import time
from contextlib import contextmanager

import pytest

import modicum as md
from modicum.cli import main as cli
from modicum.run_folder.stop_requests import ControlFolder, StopRequest, send_request
from modicum.storage import StorageFolder
from toys import Descent

NAME = "0123456789abcdef" * 2 + ".json"
TRIAL = "0123456789ab"
GOOD = json.dumps({"action": "stop_trial", "trial": TRIAL})


@pytest.fixture
def control(tmp_path):
    """A driver's view of a run folder, and the folder in which requests lie."""
    (tmp_path / "run" / "control").mkdir(parents=True)
    return ControlFolder(StorageFolder(tmp_path / "run")), tmp_path / "run" / "control"


def test_a_request_is_taken_once_and_removed(control):
    driver, place = control
    folder = StorageFolder(place.parent)
    trial = send_request(folder, StopRequest(action="stop_trial", trial=TRIAL))
    study = send_request(folder, StopRequest(action="stop_study"))
    # One that is still being written.
    (place / f"{NAME}.77.tmp").write_text(GOOD[:10])
    found = driver.poll()
    assert found.dropped == []
    assert found.requests[trial].trial == TRIAL
    assert found.requests[study].action == "stop_study"
    assert [path.name for path in place.iterdir()] == [f"{NAME}.77.tmp"]
    assert driver.poll().requests == {}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        b"\xff\xfe",
        "[" * 500,
        "null",
        "[]",
        "{}",
        '{"action": "stop"}',
        '{"action": "stop_trial"}',
        '{"action": "stop_trial", "trial": null}',
        '{"action": "stop_study", "trial": "0123456789ab"}',
        '{"action": "stop_study", "path": "/"}',
        '{"action": "stop_trial", "trial": "../../../ab"}',
        '{"action": "stop_trial", "trial": "0123456789AB"}',
        '{"action": "stop_trial", "trial": "0123456789ab\\n"}',
        '{"action": "stop_trial", "trial": 123456789012}',
        '{"action": "stop_trial", "trial": ["0123456789ab"]}',
        GOOD + " " * 512,
    ],
)
def test_what_is_no_request_is_dropped_with_a_note(control, content):
    driver, place = control
    (place / NAME).write_bytes(content if isinstance(content, bytes) else content.encode())
    found = driver.poll()
    assert found.requests == {}
    assert len(found.dropped) == 1
    assert NAME in found.dropped[0]
    assert list(place.iterdir()) == []
    assert driver.poll().dropped == []


@pytest.mark.parametrize("name", ["stop.json", "x" * 32 + ".json", NAME.upper(), f" {NAME}"])
def test_files_of_other_names_are_dropped(control, name):
    driver, place = control
    (place / name).write_text(GOOD)
    found = driver.poll()
    assert (found.requests, len(found.dropped)) == ({}, 1)
    assert list(place.iterdir()) == []


def test_folders_links_and_pipes_are_neither_followed_nor_waited_for(control, tmp_path):
    driver, place = control
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.json").write_text(GOOD)
    (place / NAME).symlink_to(outside / "secret.json")
    (place / NAME.replace("0", "1")).symlink_to(outside)
    (place / NAME.replace("0", "2")).mkdir()
    (place / NAME.replace("0", "2") / "inside").touch()
    os.mkfifo(place / NAME.replace("0", "3"))
    found = driver.poll()
    assert found.requests == {}
    assert len(found.dropped) == 4
    assert (outside / "secret.json").read_text() == GOOD
    assert (place / NAME.replace("0", "2") / "inside").exists()
    # What stays there is told once, and stands in no request's way.
    key = send_request(StorageFolder(place.parent), StopRequest(action="stop_study"))
    found = driver.poll()
    assert (list(found.requests), found.dropped) == ([key], [])


def test_a_link_in_place_of_the_folder_costs_no_file_elsewhere(control, tmp_path):
    driver, place = control
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.tex").touch()
    (outside / NAME).write_text(GOOD)
    place.rmdir()
    place.symlink_to(outside)
    assert driver.poll().dropped == ["control is a link and is not read"]
    assert driver.poll().dropped == []
    assert sorted(path.name for path in outside.iterdir()) == [NAME, "thesis.tex"]


def test_a_name_that_is_no_text_is_told_once_and_ends_nothing(control):
    driver, place = control
    open(os.path.join(os.fsencode(place), b"\xff.json"), "w").close()
    assert driver.poll().dropped == ["control has a file whose name is no text"]
    assert driver.poll().dropped == []
    send_request(StorageFolder(place.parent), StopRequest(action="stop_study"))
    assert len(driver.poll().requests) == 1


def test_whatever_was_meant_for_an_earlier_run_is_forgotten(control):
    driver, place = control
    for _ in range(250):
        send_request(StorageFolder(place.parent), StopRequest(action="stop_study"))
    driver.clear()
    assert driver.poll().requests == {}


# --- studies that are stopped -----------------------------------------------------------------


@pytest.fixture(autouse=True)
def _look_often(monkeypatch):
    monkeypatch.setattr("modicum.monitoring.publisher._LOCAL_SECONDS", 0.05)


def study(**space):
    chosen = {"method": md.grid("fast", "slow"), "steps": 6, **space}
    return md.Study(Descent, chosen, seeds=2, tracking={"tensorboard": False})


def run(out, **space):
    return study(**space).run(out, runner="local", quiet=True)


def comparable(results):
    """Columns that must be equal in two runs of the same trials."""
    drop = ["seconds", "resumed_at", "config/seconds"]
    return results.frame.drop(columns=drop)


@contextmanager
def asking(out, trial_id, request):
    """Leaves a request as soon as a trial has saved a record or a checkpoint."""
    place = StorageFolder(out)
    begun = out / "trials" / trial_id / "records.jsonl"

    def work():
        until = time.monotonic() + 20
        while not begun.exists() and time.monotonic() < until:
            time.sleep(0.01)
        send_request(place, request)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join(30)


def states(out):
    return {
        path.parent.name: json.loads(path.read_text())
        for path in (out / "trials").glob("*/trial.json")
    }


@pytest.mark.parametrize("checkpoints", [True, False])
def test_a_stopped_trial_counts_nowhere_and_runs_on_later(tmp_path, checkpoints):
    second = study(checkpoints=checkpoints).trials[1].id
    whole = run(tmp_path / "whole", checkpoints=checkpoints)
    with asking(tmp_path / "run", second, StopRequest(action="stop_trial", trial=second)):
        stopped = run(tmp_path / "run", checkpoints=checkpoints, seconds=0.1)
    by_status = {trial.id: trial.status for trial in stopped.trials}
    assert by_status.pop(second) == "stopped"
    assert set(by_status.values()) == {"finished"}
    state = states(tmp_path / "run")[second]
    assert (state["status"], state["stopped_by"]) == ("stopped", "request")
    # The cell of that trial has one seed left of two.
    counts = [cell.summary.n for cell in stopped.tables()[0].cells.values()]
    assert sorted(counts) == [1, 2]
    again = run(tmp_path / "run", checkpoints=checkpoints)
    assert {trial.status for trial in again.trials} == {"finished"}
    assert comparable(again).equals(comparable(whole))
    resumed = again.frame[again.frame.trial_id == second].resumed_at.max()
    assert (resumed > 0) == checkpoints


def test_a_trial_can_be_stopped_before_it_starts(tmp_path):
    first, *_, last = (plan.id for plan in study().trials)
    with asking(tmp_path / "run", first, StopRequest(action="stop_trial", trial=last)):
        results = run(tmp_path / "run", seconds=0.05)
    assert [trial.status for trial in results.trials] == [*["finished"] * 3, "stopped"]
    assert last not in set(results.frame.trial_id)


def test_a_stopped_study_leaves_the_rest_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("modicum.study.as_experiment", lambda _: Descent())
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "run"
    file = tmp_path / "study.yaml"
    file.write_text(
        "experiment: descent\nseeds: 4\ntracking: {tensorboard: false}\nspace: {steps: 8}\n"
    )

    def call(seconds):
        arguments = ["modicum", "run", file, "--out", out, "--local", "--quiet"]
        arguments += ["--set", f"seconds={seconds}"]
        monkeypatch.setattr("sys.argv", list(map(str, arguments)))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr().err

    plans = md.Study(Descent, {"steps": 8}, seeds=4).trials
    # Left from an earlier run: not meant for this one.
    send_request(StorageFolder(out), StopRequest(action="stop_study"))
    with asking(out, plans[1].id, StopRequest(action="stop_study")):
        code, said = call(0.1)
    assert code == 1
    assert "stopped on request" in said
    kept = {name: state["status"] for name, state in states(out).items()}
    assert kept == {plans[0].id: "finished", plans[1].id: "stopped"}
    assert (out / "results.parquet").exists()
    assert "2 pending" in (out / "report.html").read_text()
    assert json.loads((out / "status.json").read_text())["state"] == "stopped"
    code, said = call(0.0)
    assert (code, "stopped on request" in said) == (0, False)
    assert json.loads((out / "status.json").read_text())["state"] == "ended"
    frame = md.load_results(out).frame
    assert (frame.groupby("trial_id").size() == 8).all()
    assert len(frame) == 4 * 8
