"""A plain Ray job on a cluster on this machine, and a driver that joins it."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest
from two_nodes import two_nodes

from conftest import ROOT

BIN = Path(sys.executable).parent
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cluster")]


@pytest.fixture(scope="module")
def head():
    """The job API of a cluster with token authentication, its address, and what drivers need."""
    with two_nodes(cpus=1, dashboard=True) as cluster:
        environment = cluster.environment
        for name in ("RAY_ADDRESS", "PYTHONPATH"):
            environment.pop(name, None)
        yield cluster.job_url, cluster.address, environment


def submit(head, *command, cwd=ROOT):
    url, _, environment = head
    return subprocess.run(
        [BIN / "ray", "job", "submit", "--address", url, "--working-dir", ".", "--", *command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_the_quickstart_as_a_plain_ray_job(head, tmp_path):
    done = submit(
        head,
        *("python", "-m", "modicum", "run", "tune_configs/quickstart.yaml"),
        *("--seeds", "1", "--set", "max_iterations=60", "--out", str(tmp_path / "run")),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "majority_vote" in done.stdout
    assert f"report: {tmp_path}/run/report.html" in done.stdout
    frame = pd.read_parquet(tmp_path / "run" / "results.parquet")
    assert len(frame) == 12
    # The job joined the cluster that it was submitted to, and so did its trials.
    assert re.search(r"12/12 trials done", done.stdout)


def test_a_users_mistake_fails_the_job_with_its_sentence(head):
    done = submit(
        head,
        *["python", "-m", "modicum", "run", "tune_configs/quickstart.yaml", "--set", "method=none"],
    )
    assert done.returncode != 0
    assert "error: space: method" in done.stdout + done.stderr


def test_a_driver_joins_by_address(head, tmp_path):
    _, address, environment = head
    done = subprocess.run(
        [
            *(sys.executable, "-m", "modicum", "run", "tune_configs/quickstart.yaml"),
            *("--address", address, "--seeds", "1", "--set", "max_iterations=60"),
            *("--out", str(tmp_path / "run")),
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "12/12 trials done" in done.stderr


def test_without_the_token_nobody_gets_in(head):
    url, _, environment = head
    stranger = {**environment, "RAY_AUTH_TOKEN": "f" * 64}
    done = subprocess.run(
        [BIN / "ray", "job", "list", "--address", url],
        env=stranger,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0


def test_the_job_api_listens_on_the_loopback_interface_alone(head):
    port = int(head[0].rsplit(":", 1)[1])
    listening = {
        connection.laddr.ip
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }
    assert listening == {"127.0.0.1"}


def test_a_driver_without_the_token_is_told_so_and_does_nothing(head, tmp_path):
    _, address, environment = head
    done = subprocess.run(
        [
            *(sys.executable, "-m", "modicum", "run", "tune_configs/quickstart.yaml"),
            *("--address", address, "--out", str(tmp_path / "run")),
        ],
        cwd=ROOT,
        env={**environment, "RAY_AUTH_TOKEN": "f" * 64},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "error: address:" in done.stderr
    assert "token" in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("run/trials/*"))
