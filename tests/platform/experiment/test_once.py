"""Steps that a restarted trial does not compute again, with real processes and files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import modicum as md
from toys import Descent

# Computes two steps, and dies after the step that it is told.
PROGRAM = """
import json, os, random, sys
from pathlib import Path
import modicum as md

storage, log, last = sys.argv[1:]
trial = md.Trial(id="0" * 12, seed=0, scratch=Path("."), storage=storage)

def compute(name):
    with open(log, "a") as file:
        file.write(name + "\\n")
    return [random.SystemRandom().random(), "text", {"nested": 1}]

results = []
for name in ("round-001/labels", "round-002/labels"):
    results.append(trial.once(name, lambda: compute(name)))
    if name == last:
        os._exit(17)
print(json.dumps(results))
"""


def test_a_killed_process_leaves_its_finished_steps_to_the_next_one(tmp_path):
    log = tmp_path / "log"

    def run(last=""):
        command = [sys.executable, "-c", PROGRAM, tmp_path / "storage", log, last]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True)

    assert run(last="round-001/labels").returncode == 17
    assert log.read_text().splitlines() == ["round-001/labels"]
    second, third = run(), run()
    assert log.read_text().splitlines() == ["round-001/labels", "round-002/labels"]
    assert json.loads(second.stdout) == json.loads(third.stdout)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"{}"])
def test_a_step_whose_file_is_damaged_is_computed_again(tmp_path, content):
    trial = md.Trial(id="0" * 12, seed=0, scratch=tmp_path, storage=str(tmp_path / "storage"))
    assert trial.once("step", lambda: 1) == 1
    (file,) = (tmp_path / "storage").rglob("step.json")
    file.write_bytes(content)
    with pytest.warns(UserWarning, match=r"step\.json: broken step"):
        assert trial.once("step", lambda: 2) == 2
    assert trial.once("step", lambda: 3) == 2


def test_without_storage_every_call_computes(tmp_path):
    trial = md.Trial(id="0" * 12, seed=0, scratch=tmp_path)
    results = iter([1, 2])
    assert [trial.once("step", lambda: next(results)) for _ in range(2)] == [1, 2]


class Interrupted(Descent):
    """Fails after its step until the marker is there."""

    def run(self, config, trial):
        ledger = Path(config.ledger)
        start = trial.once("start", lambda: ledger.write_text(ledger.read_text() + "computed\n"))
        if not Path(config.marker).exists():
            raise RuntimeError("not yet")
        yield md.Record(budget=1, metrics={"start": start})


def test_a_trial_that_is_run_again_keeps_its_step_and_a_finished_one_drops_it(tmp_path):
    ledger, marker = tmp_path / "ledger", tmp_path / "marker"
    ledger.touch()
    study = md.Study(Interrupted, {"ledger": str(ledger), "marker": str(marker)}, seeds=1)
    assert study.run(tmp_path / "run", runner="local", quiet=True).failed
    assert [path.name for path in (tmp_path / "run" / "storage").iterdir()] == [study.trials[0].id]
    marker.touch()
    results = study.run(tmp_path / "run", runner="local", quiet=True)
    assert results.frame["start"].tolist() == [len("computed\n")]
    assert ledger.read_text() == "computed\n"
    assert list((tmp_path / "run" / "storage").iterdir()) == []
