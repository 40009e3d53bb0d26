"""Stopping on Ray, and the live page of a study whose run folder cannot be seen."""

import json
import os
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest
from two_nodes import two_nodes

import modicum as md
from conftest import SUPPORT
from modicum.run_folder.stop_requests import StopRequest, send_request
from modicum.storage import StorageFolder
from modicum.web_guard import TOKEN_HEADER
from programs import python_program
from toys import Descent
from waiting import comes_true

pytestmark = pytest.mark.slow

COMMAND = """
import modicum.study
from modicum.cli import main as cli
from toys import Descent
modicum.study.as_experiment = lambda _: Descent()
cli.main()
"""
# A trial's first record is further away than the test lasts.
STUDY = """
experiment: descent
seeds: 4
space: {steps: 2, seconds: 120}
tracking: {tensorboard: false}
"""


def status_of(out, trial_id):
    try:
        return json.loads((out / "trials" / trial_id / "trial.json").read_text())["status"]
    except OSError:
        return "pending"


def test_trials_of_tune_stop_long_before_their_next_record(tmp_path, ray_cluster):
    out = tmp_path / "run"
    space = [{"method": "slow", "seconds": 120.0}, {"method": "fast", "seconds": 0.5}]
    study = md.Study(Descent, space, seeds=2, tracking={"tensorboard": False})
    slow, _, _, last = (plan.id for plan in study.trials)
    slows = [plan.id for plan in study.trials[:2]]
    asked = []

    def ask():
        assert comes_true(lambda: all(status_of(out, name) == "running" for name in slows), 120)
        asked.append(time.time())
        # One that has not started, too: it must not be waited for.
        for name in (last, *slows):
            send_request(StorageFolder(out), StopRequest(action="stop_trial", trial=name))

    thread = threading.Thread(target=ask)
    thread.start()
    results = study.run(out, runner="ray", quiet=True)
    thread.join(30)
    statuses = [(trial.status, trial.stopped_by) for trial in results.trials]
    stopped = ("stopped", "request")
    assert statuses == [stopped, stopped, ("finished", None), stopped]
    ended = json.loads((out / "trials" / slow / "trial.json").read_text())["ended"]
    assert ended - asked[0] < 20
    assert len(results.frame) == 4


class Visitor:
    """Somebody who has the page's address."""

    def __init__(self, url):
        self.base, self.token = url.split("/?token=")

    def call(self, path, body=None):
        """Status and text of an answer."""
        request = urllib.request.Request(
            self.base + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={TOKEN_HEADER: self.token, "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def view(self):
        return json.loads(self.call("/api/view")[1])


def test_a_study_is_found_in_its_cluster_watched_and_stopped(tmp_path, monkeypatch):
    out = tmp_path / "far away"
    # The cluster's workers import the study's experiment.
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    )
    (tmp_path / "study.yaml").write_text(STUDY)
    first, second, third, last = (
        plan.id for plan in md.Study(Descent, {"steps": 2}, seeds=4).trials
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with two_nodes(cpus=1) as cluster:
        pipes["env"] = cluster.environment
        run = ["run", tmp_path / "study.yaml", "--out", out, "--address", cluster.address]
        with python_program("-c", COMMAND, *run, "--quiet", **pipes) as driver:
            assert comes_true(lambda: status_of(out, second) == "running", 240)
            show = ["-m", "modicum", "dashboard", "--address", cluster.address]
            with python_program(*show, "--study", "none", **pipes) as server:
                said = server.communicate(timeout=120)[1]
                assert (server.returncode, "far away" in said) == (2, True), said
            with python_program(*show, **pipes) as server:
                line = server.stdout.readline()
                visitor = Visitor(line.removeprefix("dashboard: ").strip())
                assert comes_true(lambda: visitor.view()["counts"].get("running") == 2, 60)
                view = visitor.view()
                assert (view["total"], view["counts"]["pending"]) == (4, 2)
                assert [node["alive"] for node in view["status"]["nodes"]] == [True, True]
                used = [node["resources"]["CPU"] for node in view["status"]["nodes"]]
                assert used == [[1, 1], [1, 1]]
                assert comes_true(lambda: visitor.view()["drawn"] >= 0, 60)
                assert "descent" in visitor.call("/api/report?version=")[1]
                listed = json.loads(visitor.call("/api/trials?query=running")[1])["trials"]
                assert sorted(row["id"] for row in listed) == sorted([first, second])
                status, said = visitor.call(f"/api/log?trial={first}")
                assert (status, str(out) in said) == (404, True)
                assert visitor.call("/api/stop", {"trial": "../" + first})[0] == 409

                assert visitor.call("/api/stop", {"trial": first})[0] == 200
                assert comes_true(lambda: status_of(out, first) == "stopped", 30)
                assert comes_true(lambda: status_of(out, third) == "running", 60)
                assert visitor.call("/api/stop", {})[0] == 200
                said = driver.communicate(timeout=60)[1]
                assert (driver.returncode, "stopped on request" in said) == (1, True), said
                assert comes_true(lambda: "gone" in visitor.view(), 30)
                assert visitor.call("/api/stop", {})[0] == 409
    assert [status_of(out, name) for name in (second, third, last)] == ["stopped"] * 2 + ["pending"]
    assert (out / "report.html").exists()
