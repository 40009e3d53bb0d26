"""The installed command, in processes of its own."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pandas as pd
import pytest

from conftest import SUPPORT
from modicum.yaml_io import dump_yaml

MODICUM = [sys.executable, "-m", "modicum"]
SMALL = {
    "name": "small",
    "experiment": "weak",
    "space": {
        "method": {"grid": ["majority_vote", "iwl"]},
        "strong_fraction": {"grid": [0.1, 1.0]},
        "max_iterations": 60,
    },
    "seeds": 2,
    "report": {"rows": "method", "columns": "strong_fraction", "metrics": "test/accuracy"},
}


def call(*arguments, cwd=None, code=0, env=None, timeout=240):
    done = subprocess.run(
        [*MODICUM, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == code, done.stderr
    return done


def records(folder):
    frame = pd.read_parquet(Path(folder) / "results.parquet")
    return frame.drop(columns=["seconds", "train/seconds"])


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small study of the real experiment, run once without Ray."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "small.yaml").write_text(dump_yaml(SMALL))
    done = call("run", "small.yaml", "--local", "--out", "local", cwd=folder)
    return folder, done


def test_run_prints_the_table_and_where_the_report_lies(small):
    folder, done = small
    assert "majority_vote" in done.stdout
    assert f"report: {folder}/local/report.html" in done.stdout
    assert "8/8 trials done" in done.stderr
    for name in ("study.yaml", "provenance.json", "results.parquet", "summary.json"):
        assert (folder / "local" / name).exists()


@pytest.mark.slow
def test_ray_and_local_agree_on_the_real_experiment(small):
    folder, _ = small
    done = call("run", "small.yaml", "--out", "ray", "--cpus", 2, cwd=folder)
    assert records(folder / "local").equals(records(folder / "ray"))
    # Quiet: the table on stdout, the progress on stderr, and nothing of Ray's.
    assert len(done.stderr.strip().splitlines()) <= 4, done.stderr
    assert done.stdout.startswith("test/accuracy")


def test_the_resolved_study_runs_as_a_study(small):
    folder, _ = small
    again = call("run", "local/study.yaml", "--local", "--out", "local", cwd=folder)
    assert "(8 earlier)" in again.stderr


def test_provenance_says_where_numbers_come_from(small):
    folder, _ = small
    facts = json.loads((folder / "local" / "provenance.json").read_text())
    commands = [entry["command"] for entry in [*facts.get("earlier", []), facts]]
    assert commands[0] == "modicum run small.yaml --local --out local"
    assert facts["packages"]["torch"]
    assert facts["hardware"]["cores"] == os.cpu_count()


@pytest.mark.slow
def test_set_and_seeds_replace_what_the_file_says(small, tmp_path):
    folder, _ = small
    arguments = ["--set", "method=labels_only", "--set", "strong_fraction={grid: [0.2]}"]
    call("run", "small.yaml", "--local", "--out", tmp_path, "--seeds", 1, *arguments, cwd=folder)
    frame = pd.read_parquet(tmp_path / "results.parquet")
    assert frame["config/method"].tolist() == ["labels_only"]
    assert frame["config/strong_fraction"].tolist() == [0.2]


@pytest.mark.slow
def test_report_list_describe_and_doctor(small):
    folder, _ = small
    markdown = call("report", "local", "--tables", "markdown", cwd=folder).stdout
    assert "| majority_vote |" in markdown
    latex = call("report", "local", "--tables", "latex", "--out", "x.html", cwd=folder).stdout
    assert r"\begin{tabular}" in latex
    assert (folder / "x.html").exists()
    assert "weak             budget: labels" in call("list").stdout
    described = call("describe", "weak").stdout
    assert "strong_fraction: float (default 0.0, ge 0.0, le 1.0)" in described
    assert "only with method: iwl, iwld" in described
    assert "weasel_temperature: float | validated (default 1.0)" in described
    assert "test/accuracy: Accuracy on the test split. (more is better)" in described
    doctor = call("doctor", env={"OPENAI_API_KEY": "sk-secret"}).stdout
    assert "sk-secret" not in doctor
    assert "OPENAI_API_KEY         present" in doctor
    required = [r for r in metadata.requires("modicum") if r.startswith("ray[")]
    tested = re.search(r"^ray +\S+ \(modicum was tested with (.*)\)$", doctor, re.MULTILINE)
    assert required[0].endswith(f"]{tested[1]}")


def test_help_and_import_stay_light():
    """`modicum --help` must not pull in Ray, torch or pandas (their import takes seconds)."""
    code = (
        "import sys, modicum.cli.main as c; sys.argv=['modicum', '--help']\n"
        "try: c.main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'ray','torch','pandas','numpy','sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture(scope="module")
def third_party(tmp_path_factory):
    """Somebody else's package, built and installed by pip into a folder of its own."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "toy"
    subprocess.run(["cp", "-r", str(SUPPORT / "third_party"), str(source)], check=True)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"),
            *("--no-build-isolation", "--target", str(target), str(source)),
        ],
        check=True,
        capture_output=True,
    )
    return {"PYTHONPATH": str(target)}


@pytest.mark.slow
def test_a_third_party_experiment_is_swept_like_our_own(third_party, tmp_path):
    study = {
        "name": "coins",
        "experiment": "coin",
        "space": {"estimator": {"grid": ["mean", "laplace"]}},
        "seeds": 20,
        "report": {"rows": "estimator", "targets": [{"metric": "error", "value": 0.1}]},
    }
    (tmp_path / "coins.yaml").write_text(dump_yaml(study))
    assert "coin " in call("list", env=third_party).stdout
    local = call("run", "coins.yaml", "--local", "--out", "local", cwd=tmp_path, env=third_party)
    assert "laplace" in local.stdout
    call("run", "coins.yaml", "--cpus", 2, "--out", "ray", cwd=tmp_path, env=third_party)
    one = pd.read_parquet(tmp_path / "local" / "results.parquet").drop(columns="seconds")
    two = pd.read_parquet(tmp_path / "ray" / "results.parquet").drop(columns="seconds")
    assert one.equals(two)
    assert len(one) == 2 * 20 * 6
    wrong = {**study, "space": {"estimator": "median"}}
    (tmp_path / "wrong.yaml").write_text(dump_yaml(wrong))
    refused = call("run", "wrong.yaml", cwd=tmp_path, env=third_party, code=2)
    assert refused.stderr == "error: estimator: expected mean or laplace, got 'median'\n"


def test_a_third_party_command_joins_the_command_line(third_party):
    assert call("coin", "toss", 2, env=third_party).stdout == "headsheads\n"


@pytest.mark.slow
def test_a_report_is_readable_without_the_experiments_package(third_party, tmp_path):
    study = {"experiment": "coin", "space": {"estimator": "mean"}, "seeds": 2}
    (tmp_path / "coins.yaml").write_text(dump_yaml(study))
    call("run", "coins.yaml", "--local", "--out", "run", cwd=tmp_path, env=third_party)
    assert "error" in call("report", "run", cwd=tmp_path).stdout


def finished(folder):
    states = [json.loads(p.read_text()) for p in folder.glob("trials/*/trial.json")]
    return {s["id"]: s["attempt"] for s in states if s["status"] == "finished"}


def wait_for(process, folder, count):
    """Until so many trials are finished, the process still going."""
    deadline = time.monotonic() + 180
    while len(finished(folder)) < count:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)


def long_study():
    """The small study's eight trials, long enough to be hit in the middle."""
    space = {**SMALL["space"], "max_iterations": 300, "patience": 10_000}
    return dump_yaml({**SMALL, "space": space})


@pytest.mark.slow
@pytest.mark.parametrize("runner", [["--local"], ["--cpus", "2"]], ids=["local", "ray"])
def test_killed_half_way_and_run_again(tmp_path, runner):
    """A real kill -9: finished trials stay, half-finished ones restart, results are equal."""
    (tmp_path / "study.yaml").write_text(long_study())
    command = ["run", "study.yaml", *runner]
    call("run", "study.yaml", "--local", "--out", "whole", cwd=tmp_path)
    process = subprocess.Popen(
        [*MODICUM, *command, "--out", "killed"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(process, tmp_path / "killed", 2)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = finished(tmp_path / "killed")
    assert 2 <= len(before) < 8
    again = call(*command, "--out", "killed", cwd=tmp_path)
    assert f"({len(before)} earlier)" in again.stderr
    after = finished(tmp_path / "killed")
    assert len(after) == 8
    assert {name: after[name] for name in before} == before
    assert records(tmp_path / "killed").equals(records(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.parametrize("runner", [["--local"], ["--cpus", "2"]], ids=["local", "ray"])
def test_interrupted_and_run_again(tmp_path, runner):
    """Ctrl-C keeps what is finished, says how to go on, and exits with 130."""
    (tmp_path / "study.yaml").write_text(long_study())
    process = subprocess.Popen(
        [*MODICUM, "run", "study.yaml", *runner, "--out", "run"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A suite that runs in the background of a shell ignores SIGINT, and so would its child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(process, tmp_path / "run", 2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert error.strip().endswith("interrupted; run the same command again to continue")
    assert "Traceback" not in error
    before = len(finished(tmp_path / "run"))
    assert 2 <= before < 8
    again = call("run", "study.yaml", *runner, "--out", "run", cwd=tmp_path)
    assert f"({before} earlier)" in again.stderr
    assert len(finished(tmp_path / "run")) == 8


@pytest.mark.slow
def test_progress_moves_on_a_terminal(tmp_path):
    """In-process trials redirect stderr while they run; the display must not go with it.

    The trials last longer than the quarter of a second between two looks at the display.
    """
    (tmp_path / "study.yaml").write_text(long_study())
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [*MODICUM, "run", "study.yaml", "--local", "--out", "run"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "150"},
    )
    os.close(terminal)
    shown = b""
    with suppress(OSError):  # The terminal of a process that has ended.
        while part := os.read(main, 4096):
            shown += part
    os.close(main)
    assert process.wait(timeout=120) == 0
    counts = {int(n) for n in re.findall(rb"(\d)/8 trials done", shown)}
    assert len(counts) >= 4, shown
    assert b"left" in shown


def test_an_unreachable_cluster_is_said_at_once(small):
    folder, _ = small
    done = call("run", "small.yaml", "--address", "127.0.0.1:9", "--out", "far", cwd=folder, code=2)
    assert done.stderr.startswith("error: address: no Ray cluster answers at '127.0.0.1:9'")
