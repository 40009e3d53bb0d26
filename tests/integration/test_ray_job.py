"""A plain Ray job on a head that runs on this machine, and a driver that joins it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pandas as pd
import pytest

from conftest import ROOT

BIN = Path(sys.executable).parent
pytestmark = pytest.mark.slow


def free_ports(count):
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A Ray head with token authentication and ports of its own; ended by its process id."""
    port, dashboard, client, agent = free_ports(4)
    # Unix sockets below the folder must stay within 107 characters.
    temporary = Path("/tmp") / f"modicum-head-{os.getpid()}"
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
    }
    for name in ("RAY_ADDRESS", "PYTHONPATH"):
        environment.pop(name, None)
    command = [
        *(str(BIN / "ray"), "start", "--head", "--block", "--num-cpus", "2"),
        *("--node-ip-address", "127.0.0.1", "--port", str(port)),
        *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard)),
        *("--ray-client-server-port", str(client), "--temp-dir", str(temporary)),
        # At its usual port the agent, which takes jobs, would meet that of another cluster here.
        *("--dashboard-agent-listen-port", str(agent)),
        "--disable-usage-stats",
    ]
    log = tmp_path_factory.mktemp("head") / "log"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        url = f"http://127.0.0.1:{dashboard}"
        wait_for_jobs(url, process, log, environment["RAY_AUTH_TOKEN"])
        yield url, f"127.0.0.1:{port}", environment
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def wait_for_jobs(url, process, log, token):
    deadline = time.monotonic() + 120
    request = urllib.request.Request(
        f"{url}/api/jobs/", headers={"Authorization": f"Bearer {token}"}
    )
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)


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
