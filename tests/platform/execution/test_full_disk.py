"""A run folder that cannot be written any more, on both runners and from the shell."""

import errno
import subprocess
import sys
import threading
import time

import pytest

import modicum as md
from toys import Descent

SPACE = {"rate": md.grid(0.25, 0.5), "steps": 6, "seconds": 0.02, "checkpoints": md.grid(False)}


def study():
    return md.Study(Descent, SPACE, seeds=3)


def records(results):
    return results.frame.drop(columns=["seconds", "resumed_at"], errors="ignore")


def fill(folder):
    """Leave no room, once the first trial has finished."""
    filler = folder / "filler"
    while not list(folder.glob("trials/*/trial.json")):
        time.sleep(0.005)
    with filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)) == 4096:
            pass


def fill_aside(folder):
    def work():
        with pytest.raises(OSError, match="space"):
            fill(folder)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize("runner", ["local", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_full_disk_ends_the_run_in_one_sentence_and_loses_nothing(
    tmp_path, small_disk, request, runner
):
    if runner == "ray":
        request.getfixturevalue("ray_cluster")
    folder = tmp_path / "run"
    small_disk(folder, "size=1m")
    filling = fill_aside(folder)
    with pytest.raises(md.StorageError, match="what it holds is kept") as raised:
        study().run(folder, runner=runner, quiet=True)
    filling.join()
    assert raised.value.errno == errno.ENOSPC
    assert not list(folder.rglob("*.tmp"))
    (folder / "filler").unlink()
    mended = study().run(folder, runner=runner, quiet=True)
    assert not mended.failed
    whole = study().run(tmp_path / "whole", runner="local", quiet=True)
    assert records(mended).equals(records(whole))


@pytest.mark.slow
def test_a_read_only_folder_is_said_without_a_traceback(tmp_path, small_disk):
    folder = tmp_path / "run"
    small_disk(folder, "size=4m")
    command = [sys.executable, "-m", "modicum", "run", "tune_configs/quickstart.yaml", "--local"]
    driver = subprocess.Popen(
        [*command, "--out", folder, "--seeds", "2"], stderr=subprocess.PIPE, text=True
    )
    while not list(folder.glob("trials/*/trial.json")):
        assert driver.poll() is None
        time.sleep(0.05)
    # A second mount on top, since the first has a file open for writing: the run's lock.
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
    try:
        _, said = driver.communicate(timeout=120)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
    assert driver.returncode == 1
    assert "Traceback" not in said
    assert [line for line in said.splitlines() if line.startswith("error: the run folder")]
