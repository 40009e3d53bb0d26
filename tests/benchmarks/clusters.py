"""Cost of a cluster: the quickstart study on one node and on two nodes of this machine.

Two nodes of one CPU use the same processors as one node of two, so the ratio shows overhead and not
scaling. Every repeat runs each variant once; the table has medians.
Run: python tests/benchmarks/clusters.py [--repeats 3]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "cluster"))

from two_nodes import two_nodes

ROOT = Path(__file__).resolve().parents[2]
STUDY = "tune_configs/quickstart.yaml"
TRIALS = 60


def modicum(environment: Mapping[str, str], *arguments: str) -> float:
    """Run a command, which must succeed, and return its duration in seconds."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "modicum", *arguments],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - started


def main() -> None:
    """Print duration and trials per minute of each variant, and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    times: dict[str, list[float]] = {}

    def measure(name: str, environment: Mapping[str, str], command: str, *options: str) -> None:
        out = Path(tempfile.mkdtemp(prefix="modicum-clusters-"))
        seconds = modicum(environment, command, STUDY, "--out", str(out / "run"), *options)
        times.setdefault(name, []).append(seconds)
        shutil.rmtree(out)
        print(f"{name}: {seconds:.1f} s", file=sys.stderr, flush=True)

    for _ in range(repeats):
        own = dict(os.environ)
        measure("run, one CPU", own, "run", "--cpus", "1")
        measure("run, two CPUs", own, "run", "--cpus", "2")
        with two_nodes(cpus=1, dashboard=True) as cluster:
            there = cluster.environment
            measure("run, two nodes of one CPU", there, "run", "--address", cluster.address)
            measure("submit, two nodes of one CPU", there, "submit", "--address", cluster.job_url)
    print(f"{'':30} {'seconds':>8} {'trials/min':>11}")
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, seconds in median.items():
        print(f"{name:30} {seconds:8.1f} {60 * TRIALS / seconds:11.0f}")
    one, two, nodes, submitted = median.values()
    print(f"two CPUs are {one / two:.2f} times as fast as one")
    print(f"two nodes take {nodes / two:.2f} times as long as one node with as many CPUs")
    print(f"submit takes {submitted - nodes:+.1f} s beyond run on the same cluster")


if __name__ == "__main__":
    main()
