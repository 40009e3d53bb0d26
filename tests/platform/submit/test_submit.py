"""Plain Ray jobs, drivers that join by address, and `modicum submit`, on a cluster of two nodes."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
from two_nodes import two_nodes

from conftest import ROOT, SUPPORT

pytestmark = pytest.mark.slow
RAY = Path(sys.executable).parent / "ray"
KEY = "sk-" + "a1B2" * 10
QUICK = ("tune_configs/quickstart.yaml", "--seeds", "1", "--set", "max_iterations=30")
# Long enough to be stopped midway.
LONG = ("--set", "max_iterations=600", "--set", "patience=600")
HALF = ("--set", "method={grid: [labels_only, iwl]}")


@pytest.fixture(scope="module")
def cluster():
    with two_nodes(cpus=1, dashboard=True) as started:
        yield started


@pytest.fixture
def shell(cluster):
    """Run a command in the repository as a user of the cluster; other variables replace its own."""
    environment = cluster.environment
    for name in ("RAY_ADDRESS", "PYTHONPATH"):
        environment.pop(name, None)

    def run(*command, **variables):
        return subprocess.run(
            command,
            cwd=ROOT,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=280,
        )

    return run


def plain_job(cluster, *arguments):
    """The command of a Ray job that runs the quickstart study."""
    return [
        *(str(RAY), "job", "submit", "--address", cluster.job_url, "--working-dir", ".", "--"),
        *("python", "-m", "modicum", "run", *arguments),
    ]


def test_the_quickstart_as_a_plain_ray_job(cluster, shell, tmp_path):
    options = ("--seeds", "1", "--set", "max_iterations=60", "--out", str(tmp_path / "run"))
    done = shell(*plain_job(cluster, QUICK[0], *options))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "majority_vote" in done.stdout
    assert f"report: {tmp_path}/run/report.html" in done.stdout
    frame = pd.read_parquet(tmp_path / "run" / "results.parquet")
    assert len(frame) == 12
    # The job joined the cluster that it was submitted to, and so did its trials.
    assert "12/12 trials done" in done.stdout


def test_a_users_mistake_fails_the_job_with_its_sentence(cluster, shell):
    done = shell(*plain_job(cluster, QUICK[0], "--set", "method=none"))
    assert done.returncode != 0
    assert "error: space: method" in done.stdout + done.stderr


def test_a_driver_joins_by_address(cluster, shell, tmp_path):
    done = shell(
        *(sys.executable, "-m", "modicum", "run", QUICK[0], "--address", cluster.address),
        *("--seeds", "1", "--set", "max_iterations=60", "--out", str(tmp_path / "run")),
    )
    assert done.returncode == 0, done.stderr
    assert "12/12 trials done" in done.stderr


def test_without_the_token_nobody_gets_in(cluster, shell):
    command = (str(RAY), "job", "list", "--address", cluster.job_url)
    assert shell(*command, RAY_AUTH_TOKEN="f" * 64).returncode != 0


def test_the_job_api_listens_on_the_loopback_interface_alone(cluster):
    port = int(cluster.job_url.rsplit(":", 1)[1])
    listening = {
        connection.laddr.ip
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
    }
    assert listening == {"127.0.0.1"}


def test_a_driver_without_the_token_is_told_so_and_does_nothing(cluster, shell, tmp_path):
    done = shell(
        *(sys.executable, "-m", "modicum", "run", QUICK[0], "--address", cluster.address),
        *("--out", str(tmp_path / "run")),
        RAY_AUTH_TOKEN="f" * 64,
    )
    assert done.returncode == 2, done.stderr
    assert "error: address:" in done.stderr
    assert "token" in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("run/trials/*"))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder of a user's own, with things in it that must stay here."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "tune_configs").mkdir()
    shutil.copy(ROOT / "tune_configs" / "quickstart.yaml", folder / "tune_configs")
    (folder / ".env").write_text(f"OPENAI_API_KEY={KEY}")
    (folder / "notes.txt").write_text(KEY)
    return folder


@pytest.fixture
def command(cluster, project):
    """Runs `modicum submit` in the project, or starts it."""
    # Another cluster's address, which must not be taken for the option's.
    environment = {**cluster.environment, "RAY_ADDRESS": "127.0.0.1:1", "OPENAI_API_KEY": KEY}

    def start(*arguments, **more):
        line = [sys.executable, "-m", "modicum", "submit", *arguments]
        return subprocess.Popen(
            [*line, "--address", cluster.job_url],
            cwd=project,
            env={**environment, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A suite that runs in the background of a shell ignores SIGINT, and so would its child.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    return start


def finish(process, seconds=250):
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def jobs(cluster):
    from ray.job_submission import JobSubmissionClient

    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN"):
        os.environ.pop(name, None)
    return JobSubmissionClient(
        cluster.job_url, headers={"Authorization": f"Bearer {cluster.token.read_text()}"}
    )


def job_of(err):
    return re.search(r"^job: +(\S+)$", err, re.MULTILINE).group(1)


def test_a_study_runs_as_a_job_and_nothing_secret_travels(command, cluster, tmp_path):
    out = tmp_path / "run"
    code, log, err = finish(
        command(*QUICK, "--out", str(out), "--data", "/sets", "--env", "NOTE=here")
    )
    assert code == 0, log + err
    assert "12/12 trials done" in log
    assert f"report: {out}/report.html" in log
    assert len(pd.read_parquet(out / "results.parquet")) == 12
    assert "left out, since they look like secrets: .env, notes.txt" in err
    job = job_of(err)
    assert f"{cluster.job_url}/#/jobs/{job}" in err
    assert f"modicum dashboard {out}" in err
    # What the cluster knows of the job, and every file that it holds.
    details = jobs(cluster).get_job_info(job)
    assert details.runtime_env["env_vars"].keys() >= {"MODICUM_DATA", "NOTE"}
    known = json.dumps([details.runtime_env, details.metadata, details.entrypoint])
    token = cluster.token.read_text()
    assert KEY not in known
    assert token not in known
    sent = [path for path in cluster.folder.rglob("runtime_resources/**/*") if path.is_file()]
    assert any(path.name == "quickstart.yaml" for path in sent)
    assert any(path.name == "study_results.py" for path in sent)
    for path in sent:
        content = path.read_bytes()
        assert KEY.encode() not in content
        assert token.encode() not in content


def test_a_mistake_is_told_before_anything_is_sent(command, cluster):
    before = len(jobs(cluster).list_jobs())
    code, _, err = finish(command(*QUICK, "--set", "method=none"))
    assert code == 2
    assert "error: space: method" in err
    code, _, err = finish(command(*QUICK, "--env", f"A={KEY}"))
    assert code == 2
    assert "keys are never sent" in err
    assert KEY not in err
    code, _, err = finish(command(*QUICK, RAY_AUTH_TOKEN="f" * 64))
    assert code == 2
    assert "refuses the token" in err
    assert len(jobs(cluster).list_jobs()) == before


def test_a_mistake_that_only_the_cluster_sees_ends_with_its_sentence(command, tmp_path):
    """The folder of the run cannot be made there."""
    (tmp_path / "file").write_text("")
    code, log, err = finish(command(*QUICK, "--out", str(tmp_path / "file" / "run")))
    assert code == 2, log + err
    assert "error: --out" in log


def test_a_job_is_left_alone_followed_stopped_and_continued(command, cluster, tmp_path):
    out = tmp_path / "run"
    code, log, err = finish(command(*QUICK, *LONG, *HALF, "--out", str(out), "--no-wait"))
    assert (code, log) == (0, "")
    job = job_of(err)

    following = command("--resume", job)
    deadline = time.monotonic() + 200
    while not (done := finished(out)):
        assert time.monotonic() < deadline, following.poll()
        time.sleep(0.2)
    # Ctrl-C ends the following and not the job.
    following.send_signal(signal.SIGINT)
    code, _, err = finish(following)
    assert code == 130
    assert f"--resume {job}" in err
    client = jobs(cluster)
    assert not client.get_job_status(job).is_terminal()

    client.stop_job(job)
    while not client.get_job_status(job).is_terminal():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    done = finished(out)
    assert 0 < len(done) < 6

    code, log, err = finish(command("--resume", job, "--out", "/other"))
    assert code == 2
    assert "--out: leave it out with --resume" in err
    code, log, err = finish(command("--resume", job))
    assert code == 0, log + err
    assert job_of(err) != job
    assert len(finished(out)) == 6
    # What was finished was not computed again.
    assert {trial: when for trial, when in finished(out).items() if trial in done} == done


@pytest.mark.parametrize("experiment", ["coin", "my_coin:Coin"])
def test_single_file_modules_travel(command, tmp_path, experiment):
    """One that an installation registers, and one of the packed folder that nothing registers."""
    source, folder = tmp_path / "source", tmp_path / "folder"
    described = source / "my_coin-0.1.dist-info"
    described.mkdir(parents=True)
    folder.mkdir()
    (folder / "mine.yaml").write_text(f"{{experiment: '{experiment}', space: {{}}, seeds: 2}}")
    toy = SUPPORT / "third_party/modicum_toy/coin.py"
    if experiment == "coin":
        shutil.copy(toy, source / "my_coin.py")
        (described / "METADATA").write_text("Metadata-Version: 2.1\nName: my-coin\nVersion: 0.1\n")
        (described / "entry_points.txt").write_text("[modicum.experiments]\ncoin = my_coin:Coin\n")
    else:
        shutil.copy(toy, folder / "my_coin.py")
    arguments = (
        str(folder / "mine.yaml"),
        "--working-dir",
        str(folder),
        "--out",
        str(tmp_path / "o"),
    )
    code, log, err = finish(command(*arguments, PYTHONPATH=str(source)))
    assert code == 0, log + err
    assert len(pd.read_parquet(tmp_path / "o/results.parquet")) == 2 * 6


def test_a_head_that_was_restarted_is_told_from_one_that_is_away(command, cluster, tmp_path):
    """Last in this file, since it ends the cluster that the other tests share."""
    out = tmp_path / "run"
    following = command(*QUICK, *LONG, "--out", str(out), "--env", "NOTE=here")
    deadline = time.monotonic() + 200
    while not (out / "plan.json").exists():
        assert time.monotonic() < deadline, following.poll()
        time.sleep(0.2)
    cluster.restart_head()
    code, _, err = finish(following)
    assert code == 1
    again = err.splitlines()[-1].partition("and it continues: ")[2]
    start, *arguments = shlex.split(again)[1:]
    assert start == "submit"
    assert arguments[arguments.index("--env") + 1] == "NOTE=here"
    code, _, err = finish(command(*arguments, "--no-wait"))
    assert code == 0, err
    assert jobs(cluster).get_job_info(job_of(err)).entrypoint.endswith("patience=600")


def finished(out):
    """When each finished trial of a run ended."""
    found = {}
    for path in out.glob("trials/*/trial.json"):
        trial = json.loads(path.read_text())
        if trial["status"] == "finished":
            found[path.parent.name] = trial["ended"]
    return found
