"""A study of thousands of trivial trials: time, memory, and the dashboard's response times.

While the study runs, requests are sent to the dashboard every two seconds, as a browser does.
Run: python tests/benchmarks/many_trials.py [--trials 5000]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
os.environ["PYTHONPATH"] = str(Path(__file__).parents[1] / "support")

import psutil

import modicum as md
from toys import Descent

_PATHS = ("/api/view", "/api/trials?limit=100&query=", "/api/report?version=-2")


class Watcher(threading.Thread):
    """Opens the dashboard of a run folder, and times its answers to repeated requests.

    Attributes:
        seconds: Time of each answer, by path.
        peak: Peak memory of the dashboard's process, in bytes.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self._ends = threading.Event()
        self.seconds: dict[str, list[float]] = {path: [] for path in _PATHS}
        self.peak = 0

    def run(self) -> None:
        """Send requests until `finish` is called."""
        while not (self._folder / "plan.json").exists():
            time.sleep(0.2)
        command = [sys.executable, "-m", "modicum", "dashboard", str(self._folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            line = process.stdout.readline()
            base, token = re.search(r"(http://[^/]+)/\?token=(\S+)", line).groups()
            held = psutil.Process(process.pid)
            while not self._ends.wait(2):
                for path in _PATHS:
                    asked = urllib.request.Request(base + path, headers={"X-Modicum-Token": token})
                    started = time.perf_counter()
                    urllib.request.urlopen(asked, timeout=60).read()
                    self.seconds[path].append(time.perf_counter() - started)
                self.peak = max(self.peak, held.memory_info().rss)
            process.terminate()

    def finish(self) -> None:
        """End the dashboard."""
        self._ends.set()
        self.join()


def main() -> None:
    """Print the time of a trial, peak memory, and the dashboard's answers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=5000)
    trials = parser.parse_args().trials
    rates = md.grid((i + 1) / trials for i in range(trials // 5))
    study = md.Study(Descent, {"rate": rates, "steps": 1}, seeds=5, name="many")
    assert len(study.trials) == trials // 5 * 5
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "many"
        watcher = Watcher(folder)
        watcher.start()
        started = time.perf_counter()
        results = study.run(folder, cpus=2, quiet=True)
        seconds = time.perf_counter() - started
        watcher.finish()
        finished = sum(trial.status == "finished" for trial in results.trials)
        memory = json.loads((folder / "provenance.json").read_text())["peak_memory_gib"]
    print(
        f"{finished} of {trials} trials finished in {seconds:.0f} s: {seconds / trials:.3f} s each"
    )
    print(f"peak memory, Ray's processes included: {memory:.2f} GiB")
    print(f"peak memory of the dashboard: {watcher.peak / 2**30:.2f} GiB")
    for path, values in watcher.seconds.items():
        slow = statistics.quantiles(values, n=20)[-1]
        median = statistics.median(values)
        name = path.partition("?")[0]
        print(
            f"{name}: median {1000 * median:.0f} ms, 95% below {1000 * slow:.0f} ms, "
            f"longest {1000 * max(values):.0f} ms of {len(values)} answers"
        )


if __name__ == "__main__":
    main()
