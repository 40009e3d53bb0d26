"""Nodes that join and leave while a study runs, and a study that waits for its first nodes."""

import json
import os
import subprocess

import pytest
from two_nodes import two_nodes

import modicum as md
from conftest import SUPPORT
from programs import python_program
from toys import Gated
from waiting import comes_true

pytestmark = pytest.mark.slow

GATED = """
import sys
import modicum as md
from toys import Gated

md.Study(Gated, {"marker": sys.argv[2]}, seeds=3, retries=0).run(sys.argv[1], quiet=True)
"""

# A trial needs two CPUs.
WAITING = """
import sys, threading, time
import modicum as md
import ray
from ray.util import placement_group_table
from modicum.ray_support.connection import connected
from toys import LeavesDeath

out = sys.argv[1]
study = md.Study(LeavesDeath, {"marker": out + "-none"}, seeds=1)
with connected():
    try:
        study.run(out, wait_for_resources=0.1, quiet=True)
    except md.InputError as error:
        print("said:", error, flush=True)
    options = {"wait_for_resources": 200, "quiet": True}
    ran = threading.Thread(target=study.run, args=[out], kwargs=options)
    ran.start()
    asked = []
    while ran.is_alive() and not asked:
        groups = [g for g in placement_group_table().values() if g["state"] == "PENDING"]
        asked = [[*group["bundles"].values()] for group in groups]
        time.sleep(0.1)
    print("said:", asked, flush=True)
    ran.join()
print("said:", md.load_results(out).trials[0].status, flush=True)
"""


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one CPU each."""
    with pytest.MonkeyPatch.context() as patch:
        # The cluster's workers import the studies' experiments.
        paths = [str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        with two_nodes(cpus=1) as started:
            yield started


def trials(out):
    return [json.loads(path.read_text()) for path in out.glob("trials/*/trial.json")]


def running(out):
    return sum(trial["status"] == "running" for trial in trials(out))


def test_a_node_that_joins_gets_a_trial_and_one_that_leaves_takes_none(tmp_path, cluster):
    """Two nodes hold two trials until the end, so the third can only run on the third node."""
    out, gate = tmp_path / "run", tmp_path / "gate"
    with python_program("-c", GATED, out, gate, env=cluster.environment) as driver:
        assert comes_true(lambda: running(out) == 2)
        node = cluster.add_worker()
        assert comes_true(lambda: running(out) == 3)
        assert node.actors("ImplicitFunc")
        node.kill()
        gate.touch()
        assert driver.wait(240) == 0
    assert [trial["status"] for trial in trials(out)] == ["finished"] * 3
    assert sorted(trial["attempt"] for trial in trials(out)) == [0, 0, 1]
    study = md.Study(Gated, {"marker": str(gate)}, seeds=3)
    local = study.run(tmp_path / "local", runner="local", quiet=True)
    frames = [r.frame.sort_values(["seed", "budget"]) for r in (local, md.load_results(out))]
    assert list(frames[0]["test/loss"]) == list(frames[1]["test/loss"])


def test_a_study_waits_for_its_first_nodes_and_asks_for_them(tmp_path, cluster):
    pipe = {"env": cluster.environment, "stdout": subprocess.PIPE}
    with python_program("-c", WAITING, tmp_path / "run", **pipe) as driver:
        # Ray's own lines, of a node that died in an earlier test, stand in between.
        said = (line for line in driver.stdout if line.startswith("said: "))
        assert "one trial needs 2 CPU, but the cluster has " in next(said)
        assert next(said) == "said: [[{'CPU': 2.0}]]\n"
        cluster.cpus = 2
        cluster.add_worker()
        assert next(said) == "said: finished\n"
        assert driver.wait(60) == 0
