"""Temporary folders of trials: checkpoints that have been copied, and killed processes."""

import os
import socket
import subprocess
import sys
import tempfile
from contextlib import closing

import pytest

from modicum.execution.messages import EndMessage
from modicum.execution.run_trial import run_trial
from modicum.execution.scratch import remove_orphans, scratch_folder
from modicum.experiment.resources import Resources
from modicum.planning.trial_plan import plan_trial
from toys import Descent, DescentConfig


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_checkpoint_is_deleted_once_the_trial_goes_on(temporary):
    plan = plan_trial(Descent(), DescentConfig(steps=3, checkpoints=True), 0, {})
    held = []
    with closing(run_trial(Descent(), plan, Resources())) as messages:
        for message in messages:
            if isinstance(message, EndMessage):
                break
            held.append(message.checkpoint)
            assert (message.checkpoint / "state.json").exists()
            assert not any(any(folder.iterdir()) for folder in held[:-1])
    assert len(held) == 3
    assert list(temporary.iterdir()) == []


def test_folders_of_killed_processes_are_removed_by_the_next_one(temporary):
    code = (
        "import os, signal, sys\n"
        "from modicum.execution.scratch import scratch_folder\n"
        "context = scratch_folder('abc')\n"
        "folder = context.__enter__()\n"
        "(folder / 'weights').write_text('1')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "TMPDIR": str(temporary)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    (left,) = temporary.iterdir()
    assert (left / "weights").exists()
    reused = temporary / f"modicum-{socket.gethostname()}-{os.getpid()}-1000-abc-x"
    elsewhere = temporary / "modicum-elsewhere-99999999-1000-abc-x"
    other = temporary / "modicum-logs-x"
    for folder in (reused, elsewhere, other):
        folder.mkdir()
    with scratch_folder("def") as mine:
        remove_orphans.cache_clear()
        remove_orphans(str(temporary))
        assert set(temporary.iterdir()) == {elsewhere, other, mine}
