"""A trial's log: all that it and its subprocesses print, and nothing of other trials."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import modicum as md
from leaky import Printing, lines
from modicum.execution.local import run_local
from modicum.execution.recorder import Recorder
from modicum.planning.trial_plan import plan_trial
from modicum.run_folder.stop_requests import StopRequests
from modicum.run_folder.trial_logs import TrialLogs, log_file
from modicum.storage import StorageFolder

RUNNERS = ["local", "ray"]
pytestmark = pytest.mark.filterwarnings("ignore:warned")


def printed(log):
    """Lines of a log, without the time of the trial's logger and the source of a warning."""
    kept = [re.sub(r"^\d{4}-.* INFO ", "INFO ", line) for line in log.splitlines()]
    return [line for line in kept if "warn" not in line]


STUDY = """
import os, sys
import modicum as md
from leaky import Printing

before = os.fstat(1), os.fstat(2)
md.Study(Printing, {}, seeds=3).run(sys.argv[1], runner="local", quiet=True)
assert (os.fstat(1), os.fstat(2)) == before
print("free again")
"""


@pytest.mark.parametrize("runner", RUNNERS)
def test_each_log_has_all_lines_of_its_trial_alone(tmp_path, request, runner):
    """Handlers that outlive a trial write to the log of the trial that runs.

    The local trials have a process of their own, since pytest adds handlers to the root logger.
    """
    if runner == "local":
        command = [sys.executable, "-c", STUDY, tmp_path]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("free again\n", "")
    else:
        request.getfixturevalue("ray_cluster")
        md.Study(Printing, {}, seeds=3).run(tmp_path, quiet=True)
    files = list(tmp_path.glob("trials/*/log.txt"))
    assert len(files) == 3
    for file in files:
        seed = json.loads((file.parent / "trial.json").read_text())["seed"]
        log = file.read_bytes().decode(errors="replace")
        assert sorted(printed(log)) == sorted(lines(seed))
        assert log.count(f"UserWarning: warned {seed}") == 1


def peak_bytes():
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x)
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("runner", RUNNERS)
def test_eighty_megabytes_of_logs_do_not_pass_through_the_driver(tmp_path, ray_cluster, runner):
    md.Study(Printing, {}, seeds=1).run(tmp_path / "warm", runner=runner, quiet=True)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    study = md.Study(Printing, {"megabytes": 40}, seeds=2)
    results = study.run(tmp_path / "run", runner=runner, quiet=True)
    grown = peak_bytes() - before
    for trial in results.trials:
        log = tmp_path / "run" / "trials" / trial.id / "log.txt"
        assert log.stat().st_size > 40_000_000
        assert log.read_bytes().endswith(f"unfinished {trial.seed}".encode())
    assert grown < 20_000_000


def test_logs_are_kept_whole_where_nothing_can_be_appended(tmp_path, monkeypatch):
    """A trial that goes on adds to the log that an earlier run has left."""
    folder = StorageFolder(tmp_path)
    monkeypatch.setattr(StorageFolder, "local", None)
    logs = TrialLogs(folder)
    logs.append("a", b"one\n")
    logs.save("a")
    file = tmp_path / "trials" / "a" / "log.txt"
    assert file.read_bytes() == b"one\n"
    later = TrialLogs(folder)
    later.append("a", b"two\n\xff")
    assert file.read_bytes() == b"one\n"
    later.save("a")
    later.append("a", b"three\n")
    later.save("a")
    assert file.read_bytes() == b"one\ntwo\n\xffthree\n"
    later.remove("a")
    assert not file.exists()


def test_the_recorder_takes_logs_out_of_messages_where_trials_do_not_see_the_folder(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(StorageFolder, "local", None)
    recorder = Recorder(StorageFolder(tmp_path), Printing())
    plans = [plan_trial(Printing(), Printing.Config(), seed, {}) for seed in (0, 1)]
    recorder.add(plans)
    run_local(recorder, StopRequests())
    for plan in plans:
        log = (tmp_path / "trials" / plan.id / "log.txt").read_bytes()
        for kind in (b"stdout", b"library", b"child", b"unfinished"):
            assert re.findall(kind + rb" (\d)", log) == [b"%d" % plan.seed]


def test_a_log_file_is_written_only_where_the_run_folder_is_the_drivers(tmp_path):
    inode = tmp_path.stat().st_ino
    assert log_file(tmp_path, inode, "a") == tmp_path / "trials" / "a" / "log.txt"
    assert log_file(tmp_path, inode + 1, "a") is None
    assert log_file(tmp_path / "missing", inode, "a") is None


def test_a_trial_that_is_run_afresh_has_no_log_of_the_earlier_run(tmp_path):
    study = md.Study(Printing, {}, seeds=1)
    results = study.run(tmp_path, runner="local", quiet=True)
    file = tmp_path / "trials" / results.trials[0].id / "trial.json"
    file.write_text(file.read_text().replace('"finished"', '"running"'))
    study.run(tmp_path, runner="local", quiet=True)
    assert (file.parent / "log.txt").read_bytes().count(b"child 0") == 1
