"""Losses through faults: real faults in a cluster of two nodes, compared with undisturbed runs.

For each family's small study and each fault, the study starts on two nodes of this machine, the
fault strikes after a third of the records, the study continues or is run again, and its records are
compared with those of an undisturbed run. Each row has the trials lost, the trials restarted, the
work that was repeated, and whether the records are equal (except timing columns).

Needs root: faults mount file systems and limit the memory of a process through control groups.
Run: python tests/benchmarks/reliability.py [--families weak] [--faults driver_killed] [--out DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import psutil

import modicum as md

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "cluster"))

from two_nodes import TwoNodes, two_nodes

ROOT = Path(__file__).resolve().parents[2]

# Seconds after which a run counts as hung.
_PATIENCE = 600.0


@dataclass(frozen=True)
class Case:
    """A study that faults strike.

    Attributes:
        study: Study file.
        options: Options of `modicum run`.
        cpus: Number of CPUs of each node.
    """

    study: str
    options: tuple[str, ...]
    cpus: int = 1


CASES = {
    "weak": Case(
        "tune_configs/quickstart.yaml",
        # Trials of some seconds, so that faults strike running trials.
        ("--seeds", "2", "--set", "max_iterations=1000", "--set", "patience=1000"),
    ),
    "vae": Case("tune_configs/vae/digits.yaml", ("--seeds", "1")),
    "solipsistic": Case(
        "tune_configs/solipsistic/figure_5_4.yaml",
        ("--seeds", "2", "--set", "model_updates=300", "--set", "checkpoint_every=5"),
    ),
    # A trial is two workers.
    "preference": Case("tune_configs/preference/quick.yaml", (), cpus=2),
}


class Run:
    """A study on a cluster, with the driver as a process of its own.

    Args:
        case: Study to run.
        cluster: Cluster to run it on.
        folder: Folder for the run folder and the logs.
        job: Run the driver as a job of the cluster, which the process submits and follows.
    """

    def __init__(self, case: Case, cluster: TwoNodes, folder: Path, job: bool) -> None:
        self.case, self.cluster, self.folder, self.job = case, cluster, folder, job
        self.out = folder / "run"
        self.log = folder / "log"
        self.driver: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the driver, as a user would from a shell on the head."""
        cache, program = str(self.folder / "cache"), [sys.executable, "-m", "modicum"]
        if self.job:
            where = ["--address", self.cluster.job_url, "--cache", cache]
            command = [*program, "submit", *where]
            if os.environ.get("MODICUM_DATA"):
                command += ["--data", os.environ["MODICUM_DATA"]]
        else:
            command = [*program, "run", "--address", self.cluster.address]
        environment = {**self.cluster.environment, "MODICUM_CACHE": cache}
        with self.log.open("ab") as log:
            self.driver = subprocess.Popen(
                [*command, self.case.study, *self.case.options, "--out", str(self.out)],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )

    def wait(self) -> int:
        """Wait for the driver and return its exit code.

        Raises:
            RuntimeError: The driver does not end.
        """
        assert self.driver is not None
        try:
            return self.driver.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.driver.kill()
            raise RuntimeError(f"the driver hangs; its log is {self.log}") from None

    def wait_for_work(self, count: int) -> None:
        """Wait until there are `count` records and a trial is running.

        Raises:
            RuntimeError: The study ended before.
        """
        assert self.driver is not None
        while self.records() < count or not self.running():
            if self.driver.poll() is not None:
                raise RuntimeError(f"nothing to disturb; the log is {self.log}")
            time.sleep(0.05)

    def records(self) -> int:
        """Number of records in the run folder."""
        return sum(
            len(path.read_bytes().splitlines()) for path in self.out.glob("trials/*/records.jsonl")
        )

    def trials(self) -> dict[str, dict]:
        """Contents of `trial.json` of each trial that has started."""
        found = {}
        for path in self.out.glob("trials/*/trial.json"):
            with contextlib.suppress(ValueError):
                found[path.parent.name] = json.loads(path.read_text())
        return found

    def running(self) -> dict[str, dict]:
        """Trials that are running."""
        return {name: t for name, t in self.trials().items() if t["status"] == "running"}

    def at_stake(self) -> dict[str, float]:
        """Seconds of work since the last checkpoint, by running trial."""
        found = {}
        for name, trial in self.running().items():
            rows = (self.out / "trials" / name / "records.jsonl").read_text().splitlines()
            kept = 0
            if trial["checkpoint"]:
                note = self.out / trial["checkpoint"] / "modicum_checkpoint.json"
                kept = json.loads(note.read_text())["records"]
            safe = json.loads(rows[kept - 1])["seconds"] if 0 < kept <= len(rows) else 0.0
            found[name] = max(0.0, time.time() - trial["started"] - safe)
        return found

    def trial_processes(self) -> list[psutil.Process]:
        """Processes of running trials, those of the worker node first."""
        nodes = (self.cluster.worker, self.cluster.head)
        return [process for node in nodes for process in node.actors("ImplicitFunc")]


@dataclass
class Outcome:
    """Outcome of a fault.

    Attributes:
        seconds: Time from the first start to the end, including the repair.
        codes: Exit codes of the drivers, in order.
        lost: Number of trials that did not finish.
        again: Number of trials restarted, from the beginning or a checkpoint.
        repeated: Seconds of work of these trials that was not in a checkpoint before the fault.
        equal: Whether the records equal those of the undisturbed run.
        said: Error message of the first driver, if it gave up.
    """

    seconds: float
    codes: list[int] = field(default_factory=list)
    lost: int = 0
    again: int = 0
    repeated: float = 0.0
    equal: bool = True
    said: str = ""


def undisturbed(run: Run) -> list[int]:
    """No fault."""
    run.start()
    return [run.wait()]


def driver_killed(run: Run) -> list[int]:
    """The driver is killed and run again."""
    assert run.driver is not None
    run.driver.kill()
    code = run.wait()
    run.start()
    return [code, run.wait()]


def worker_killed(run: Run) -> list[int]:
    """The worker node is killed and not replaced."""
    run.cluster.worker.kill()
    return [run.wait()]


def worker_replaced(run: Run) -> list[int]:
    """The worker node is killed and another one joins."""
    run.cluster.worker.kill()
    run.cluster.add_worker()
    return [run.wait()]


def node_joins(run: Run) -> list[int]:
    """A third node joins, and says how soon it got a trial, if there was one for it."""
    node, joined = run.cluster.add_worker(), time.monotonic()
    assert run.driver is not None
    while run.driver.poll() is None:
        if node.actors("ImplicitFunc"):
            waited = time.monotonic() - joined
            print(f"  node_joins: its first trial after {waited:.1f} s", file=sys.stderr)
            break
        time.sleep(0.2)
    return [run.wait()]


def node_leaves(run: Run) -> list[int]:
    """The worker node is told to leave, as an autoscaler does."""
    run.cluster.worker.leave()
    return [run.wait()]


def head_restarted(run: Run) -> list[int]:
    """The head is killed, with the job's driver, and started anew; the job is submitted again."""
    run.cluster.head.kill()
    code = run.wait()
    run.cluster.restart_head()
    run.start()
    return [code, run.wait()]


def out_of_memory(run: Run) -> list[int]:
    """The kernel kills a trial's process that is out of memory."""
    group = Path("/sys/fs/cgroup/memory") / f"modicum-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(2**20))
        victim = run.trial_processes()[0]
        # Memory that the process has already is not charged to its new group; new memory is.
        (group / "cgroup.procs").write_text(str(victim.pid))
        victim.wait(_PATIENCE)
    finally:
        group.rmdir()
    return [run.wait()]


def disk_full(run: Run) -> list[int]:
    """The run folder's disk is full until space is freed; then the study is run again."""
    filler = run.folder / "run" / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    code = run.wait()
    filler.unlink()
    run.start()
    return [code, run.wait()]


def read_only(run: Run) -> list[int]:
    """The run folder's file system is read-only for a while; then the study is run again."""
    subprocess.run(["mount", "--bind", run.out, run.out], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", run.out], check=True)
    try:
        code = run.wait()
    finally:
        subprocess.run(["umount", "--lazy", run.out], check=True)
    run.start()
    return [code, run.wait()]


FAULTS: dict[str, Callable[[Run], list[int]]] = {
    fault.__name__: fault
    for fault in (
        driver_killed,
        worker_killed,
        worker_replaced,
        node_joins,
        node_leaves,
        head_restarted,
        out_of_memory,
        disk_full,
        read_only,
    )
}


@contextlib.contextmanager
def small_disk(place: Path, mib: int = 512) -> Iterator[None]:
    """Mount a separate file system at a path for a block."""
    place.mkdir(parents=True)
    size = f"size={mib}m"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def metrics(results: md.Results) -> list[str]:
    """Metrics among the columns of a run's records."""
    declared = results.experiment["metrics"]
    return [
        name
        for name in map(str, results.frame)
        if any(fnmatch.fnmatch(name, pattern) for pattern in declared)
    ]


def records(out: Path) -> pd.DataFrame:
    """Records of a run folder without timing columns, in a fixed order."""
    results = md.load_results(out)
    timing = [name for name in metrics(results) if results.metric_info(name)["timing"]]
    frame = results.frame.drop(columns=[*timing, "seconds"], errors="ignore")
    return frame.sort_values(["trial_id", "budget"], kind="stable").reset_index(drop=True)


def strike(
    case: Case, fault: Callable[[Run], list[int]], folder: Path, expected: pd.DataFrame | None
) -> Outcome:
    """Run a study with one fault in a new cluster.

    Args:
        case: Study to run.
        fault: Function that strikes and returns the exit codes of the drivers.
        folder: Folder of the run, emptied first.
        expected: Records of the undisturbed run; None if this is the undisturbed run.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kept = folder / "kept"
    job = fault is head_restarted
    with two_nodes(case.cpus, dashboard=job) as cluster, small_disk(folder / "run"):
        run = Run(case, cluster, folder, job)
        started = time.monotonic()
        before: dict[str, float] = {}
        if expected is None:
            codes = fault(run)
        else:
            run.start()
            run.wait_for_work(len(expected) // 3)
            before = run.at_stake()
            codes = fault(run)
        outcome = Outcome(time.monotonic() - started, codes)
        # Attempts count from 0, and only a restart adds one.
        again = [name for name, trial in run.trials().items() if trial["attempt"] > 0]
        outcome.again = len(again)
        outcome.repeated = sum(before.get(name, 0.0) for name in again)
        shutil.copytree(run.out, kept)
    if expected is not None:
        found = records(kept)
        outcome.lost = len(set(expected["trial_id"]) - set(found["trial_id"]))
        outcome.equal = found.equals(expected)
        if codes[0] != 0:
            lines = (folder / "log").read_text().splitlines()
            outcome.said = next((line for line in lines if line.startswith("error:")), "")
    return outcome


def main() -> None:
    """Print a table of every fault in every family."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--out", type=Path, default=Path("runs/reliability"))
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    print("| family | fault | seconds | exit codes | lost | begun again | repeated | equal |")
    print("|---|---|---|---|---|---|---|---|")
    for family in given.families:
        case, place = CASES[family], given.out.absolute() / family
        usual = strike(case, undisturbed, place / "undisturbed", None)
        expected = records(place / "undisturbed" / "kept")
        print(f"| {family} | none | {usual.seconds:.0f} | {usual.codes[0]} | | | | |", flush=True)
        for name in given.faults:
            found = strike(case, FAULTS[name], place / name, expected)
            codes = ", ".join(map(str, found.codes))
            print(
                f"| {family} | {name} | {found.seconds:.0f} | {codes} | {found.lost} "
                f"| {found.again} | {found.repeated:.0f} s | {'yes' if found.equal else 'NO'} |",
                flush=True,
            )
            if found.said:
                print(f"  {name}: {found.said}", file=sys.stderr)


if __name__ == "__main__":
    main()
