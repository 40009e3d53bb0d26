"""Where results go on a cluster: a folder that workers do not see, and S3."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from conftest import ROOT
from two_nodes import two_nodes

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
