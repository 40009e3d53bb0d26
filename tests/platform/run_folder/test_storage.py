"""Where results go on a cluster: a folder that workers do not see, and S3."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, suppress
from pathlib import Path

import pandas as pd
import pytest
from two_nodes import two_nodes

import modicum as md
from conftest import ROOT, SUPPORT
from modicum.storage import StorageFolder
from waiting import comes_true

pytestmark = pytest.mark.slow
QUICK = ("tune_configs/quickstart.yaml", "--seeds", "1", "--set", "max_iterations=60")


def start(environment, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "modicum", "run", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def blind(tmp_path_factory):
    """A folder that the head sees, and a cluster whose worker finds it empty."""
    try:
        subprocess.run(["unshare", "--mount", "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mount namespaces cannot be made here")
    folder = tmp_path_factory.mktemp("shared")
    with two_nodes(cpus=1, hidden=folder) as cluster:
        yield cluster, folder


def test_trials_without_checkpoints_run_where_the_folder_is_not_seen(blind):
    cluster, folder = blind
    process = start(cluster.environment, *QUICK, "--out", str(folder / "run"))
    worked = False
    while process.poll() is None:
        worked = worked or bool(cluster.worker.actors("ImplicitFunc"))
        time.sleep(0.5)
    assert process.returncode == 0, process.communicate()
    assert worked, "no trial ran on the worker"
    frame = pd.read_parquet(folder / "run" / "results.parquet")
    assert list(frame["status"]) == ["finished"] * 12
    seen_there = Path(f"/proc/{cluster.worker.pid}/root{folder}")
    assert list(seen_there.iterdir()) == []


def test_a_study_with_checkpoints_is_told_so_in_a_sentence(blind):
    cluster, folder = blind
    process = start(
        cluster.environment,
        *("tune_configs/vae/digits.yaml", "--seeds", "1", "--set", "save_model=true"),
        *("--out", str(folder / "saved")),
    )
    out, err = process.communicate(timeout=200)
    assert process.returncode == 2, out + err
    last = err.strip().splitlines()[-1]
    assert re.match(r"error: --out .*saves checkpoints, and some nodes cannot write", last)
    assert "Traceback" not in err
    assert not list((folder / "saved").glob(".seen-*"))


# Where .ci/run installs it; older servers elsewhere give answers that Arrow does not take.
SERVER = shutil.which("moto_server", path=str(Path(sys.prefix) / "moto" / "bin"))

# A trial fails at its fourth record until the marker is there: a second run continues it.
PROGRAM = """
import sys
import modicum as md
from toys import Rising

uri, marker = sys.argv[1:]
space = {"rate": 0.5, "steps": 5, "checkpoints": True, "marker": marker}
results = md.Study(Rising, space, seeds=1).run(uri, cpus=1, quiet=True)
print(len(results.failed), len(results.frame))
"""


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """The address of a server that speaks S3, with an empty bucket."""
    if SERVER is None:
        pytest.skip("moto is not installed in .venv/moto (see .ci/run)")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("s3") / "log").open("wb")
    process = subprocess.Popen([SERVER, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    try:
        bucket = urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")

        def answers():
            assert process.poll() is None
            with suppress(OSError):
                urllib.request.urlopen(bucket, timeout=5).close()
                return True

        assert comes_true(answers, 120)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def test_a_study_with_checkpoints_on_s3_is_continued(s3, tmp_path, monkeypatch):
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    for name, value in {**keys, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    )
    uri = f"s3://bucket/runs/a?region=us-east-1&scheme=http&endpoint_override={s3}"
    (tmp_path / "program.py").write_text(PROGRAM)

    def run():
        done = subprocess.run(
            [sys.executable, tmp_path / "program.py", uri, tmp_path / "mark"],
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[-2:]

    assert run() == ["1", "3"]
    folder = StorageFolder(uri)
    (trial,) = folder.folders("trials")
    before = folder.read_json("trials", trial, "trial.json")
    assert folder.exists(before["checkpoint"], "state.json")
    (tmp_path / "mark").touch()
    assert run() == ["0", "5"]
    after = folder.read_json("trials", trial, "trial.json")
    # Tune counts an attempt's checkpoints from 0: the second began where the first had ended.
    assert after["checkpoint"].endswith("checkpoint_000001")
    assert folder.read_json(after["checkpoint"], "state.json") == {"step": 4}
    results = md.load_results(uri)
    assert list(results.frame["budget"]) == [0, 1, 2, 3, 4]
    log = folder.read_text("trials", trial, "log.txt")
    assert log.split() == [word for step in range(5) for word in ("step", str(step))]
    shown = folder.display("report.html")
    assert shown.endswith(f"report.html?region=us-east-1&scheme=http&endpoint_override={s3}")
    assert folder.member(shown) == "report.html"
    assert folder.exists("report.html")
    # A store that moves no folders sets a damaged trial aside all the same.
    folder.write_bytes(b"", "trials", trial, "trial.json")
    assert run() == ["0", "5"]
    assert folder.read_bytes("damaged", f"{trial}-0", "trial.json") == b""
    assert folder.folders("damaged", f"{trial}-0", "checkpoints") == [f"{trial}-0", f"{trial}-1"]
    assert folder.folders("checkpoints") == [f"{trial}-0"]
