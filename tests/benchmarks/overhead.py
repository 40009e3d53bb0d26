"""Cost of the platform beyond the work of its trials, as figures and ratios.

Run: python tests/benchmarks/overhead.py [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
os.environ["PYTHONPATH"] = str(Path(__file__).parents[1] / "support")

import psutil

# Numbers of trials, in multiples of three.
SIZES = (60, 999)


def ours(folder: str, trials: int) -> float:
    """Seconds for trivial trials of a study with TensorBoard logs; Ray is already running."""
    import modicum as md
    from toys import Descent

    rates = md.grid((i + 1) / trials for i in range(trials // 3))
    study = md.Study(Descent, {"rate": rates, "steps": 1}, seeds=3)
    assert len(study.trials) == trials
    started = time.perf_counter()
    study.run(folder, quiet=True)
    return time.perf_counter() - started


def plain(folder: str, trials: int) -> float:
    """Seconds for trivial trials on Ray Tune alone, with reused actors and without its loggers."""
    from ray import tune

    def trivial(config):
        tune.report({"loss": config["i"]})

    tuner = tune.Tuner(
        trivial,
        param_space={"i": tune.grid_search(list(range(trials)))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(storage_path=folder, name="plain", verbose=0),
    )
    started = time.perf_counter()
    tuner.fit()
    return time.perf_counter() - started


def overhead(repeats: int) -> None:
    """Print seconds of a trial in a study and on Tune, interleaved, and the driver's memory."""
    from modicum.ray_support.connection import connected

    with connected(cpus=2):
        for trials in SIZES:
            times: dict[str, list[float]] = {"ours": [], "plain Tune": []}
            before = memory()
            for _ in range(repeats):
                with tempfile.TemporaryDirectory() as folder:
                    times["ours"].append(ours(folder + "/ours", trials))
                    times["plain Tune"].append(plain(folder + "/plain", trials))
            median = {name: statistics.median(values) for name, values in times.items()}
            for name, seconds in median.items():
                spread = ", ".join(f"{value / trials:.3f}" for value in times[name])
                print(f"{trials} trials, {name}: {seconds / trials:.3f} s a trial (of {spread})")
            print(
                f"{trials} trials, ours / plain Tune: {median['ours'] / median['plain Tune']:.2f}"
            )
            print(f"{trials} trials, memory of the driver: {before} to {memory()} MiB")


def memory() -> int:
    """Resident memory of this process, in MiB."""
    return psutil.Process().memory_info().rss >> 20


def start_up(repeats: int) -> None:
    """Print the time of `modicum --help`, of `import modicum` and of starting Python."""

    def timed(*arguments: str) -> float:
        values = []
        for _ in range(repeats + 2):
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            values.append(time.perf_counter() - started)
        return statistics.median(values)

    print(f"modicum --help: {timed('-m', 'modicum', '--help'):.2f} s")
    print(f"python -c 'import modicum': {timed('-c', 'import modicum'):.2f} s")
    print(f"python -c pass: {timed('-c', 'pass'):.2f} s")


def many_results() -> None:
    """Print the time to load and tabulate 2,000 trials with 50 records each, in a new process."""
    import modicum as md
    from modicum.execution.messages import EndMessage
    from modicum.execution.recorder import Recorder
    from modicum.storage import StorageFolder
    from toys import Descent

    with tempfile.TemporaryDirectory() as place:
        study = md.Study(
            Descent, {"rate": md.grid(i / 1000 for i in range(1, 401)), "steps": 50}, seeds=5
        )
        folder = StorageFolder(place)
        recorder = Recorder(folder, study.experiment)
        recorder.add(study.trials)
        rows = [
            {"budget": 10.0 * (i + 1), "seconds": 0.1, "test/loss": 1 / (i + 1), "start": 1.5}
            for i in range(50)
        ]
        end = EndMessage("finished")
        for trial_id, state in recorder.trials.items():
            state.rows = list(rows)
            recorder.end(trial_id, end)
        code = (
            "import json, resource, sys, time\n"
            "started = time.perf_counter()\n"
            "import modicum as md\n"
            "r = md.load_results(sys.argv[1])\n"
            "t = r.table('rate', metric='test/loss')\n"
            "assert len(t.cells) == 400 and len(r.frame) == 100_000\n"
            "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20\n"
            "print(json.dumps([time.perf_counter() - started, peak]))\n"
        )
        for label in ("trials' own files", "results.parquet"):
            done = subprocess.run(
                [sys.executable, "-c", code, place], check=True, capture_output=True, text=True
            )
            seconds, gib = json.loads(done.stdout)
            print(f"2,000 trials x 50 records from {label}: {seconds:.2f} s, {gib:.2f} GiB")
            if label != "results.parquet":
                md.Results.consolidate(folder)


def main() -> None:
    """Run every benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    start_up(repeats)
    many_results()
    overhead(repeats)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of this process: {used:.2f} GiB")


if __name__ == "__main__":
    main()
