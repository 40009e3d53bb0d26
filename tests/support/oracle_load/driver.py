"""A user's program, to be killed: judges a task's pairs and writes the answers to a file.

Run: python driver.py TASK ANSWERS. The driver prints `ready` when it has joined the cluster of
`RAY_ADDRESS`, and begins at a line from stdin, so a kill can be timed by the endpoint's log.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from modicum.oracles import Failure, Judgement
from modicum.oracles.endpoint.budget import Budget
from modicum.oracles.endpoint.oracle import EndpointOracle
from modicum.oracles.endpoint.settings import Endpoint
from oracle_load.questions import pairs

MODEL = "judge"
TEMPLATE = "summarisation"


@dataclass(frozen=True)
class Task:
    """A driver's task.

    Attributes:
        pairs: Number of pairs.
        seed: Seed of the pairs.
        run: The run that pays.
        endpoint: Settings of the `Endpoint`.
        dollars: The run's budget.
    """

    pairs: int
    seed: int
    run: str
    endpoint: dict[str, Any] = field(default_factory=dict)
    dollars: float | None = None

    def oracle(self) -> EndpointOracle:
        """The oracle that judges the pairs."""
        return EndpointOracle(
            MODEL,
            TEMPLATE,
            endpoint=Endpoint(**self.endpoint),
            run=self.run,
            budget=Budget(dollars=self.dollars),
        )


class Driver:
    """A driver's process.

    Attributes:
        process: The process.
    """

    def __init__(self, task: Task, folder: Path, environment: dict[str, str]) -> None:
        self._answers = folder / "answers.json"
        (folder / "task.json").write_text(json.dumps(asdict(task)))
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(folder / "task.json"), str(self._answers)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def begin(self) -> None:
        """Let the driver judge, once it is ready."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError("a driver did not start")
        self.process.stdin.write("begin\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """Kill the driver (`kill -9`), which must be at work."""
        if self.process.poll() is not None:
            raise RuntimeError("a driver ended before it was killed: use more pairs")
        self.process.kill()
        self.process.wait()

    def answers(self, patience: float) -> list[Judgement | Failure]:
        """The driver's answers, once it has ended.

        Args:
            patience: Most seconds to wait.
        """
        if self.process.wait(timeout=patience) != 0:
            raise RuntimeError("a driver failed")
        return [
            Judgement(**each) if "winner" in each else Failure(**each)
            for each in json.loads(self._answers.read_text())
        ]


@contextmanager
def drivers(tasks: list[Task], folder: Path, environment: dict[str, str]) -> Iterator[list[Driver]]:
    """Start a driver for each task; all drivers end with the block."""
    started: list[Driver] = []
    try:
        for number, task in enumerate(tasks):
            own = folder / f"driver-{task.run}-{number}"
            own.mkdir(parents=True)
            started.append(Driver(task, own, environment))
        yield started
    finally:
        for driver in started:
            driver.process.kill()
            driver.process.communicate()


def main() -> None:
    task = Task(**json.loads(Path(sys.argv[1]).read_text()))
    from modicum.ray_support.connection import ensure_connected

    ensure_connected()
    print("ready", flush=True)
    if not sys.stdin.readline():
        return
    with task.oracle() as oracle:
        judged = oracle.judge(pairs(task.pairs, task.seed))
    unfinished = Path(f"{sys.argv[2]}.{os.getpid()}")
    unfinished.write_text(json.dumps([asdict(each) for each in judged]))
    unfinished.rename(sys.argv[2])


if __name__ == "__main__":
    main()
