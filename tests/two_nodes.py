"""A Ray cluster of two nodes on this machine, either of which can be killed as a machine would be.

    with two_nodes() as cluster:
        subprocess.run([sys.executable, "program.py"], env=cluster.environment)
        cluster.worker.kill()

Each node is what `ray start` makes of it: a raylet, its agents and its workers, in a session of
its own, so that killing it ends all of these and nothing else. Token authentication is on.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

# With a node's start, and with its end, seconds.
_PATIENCE = 240.0


@dataclass(frozen=True)
class Node:
    """A node.

    Attributes:
        process: Its `ray start`, which leads the session.
    """

    process: subprocess.Popen[bytes]

    def processes(self) -> list[psutil.Process]:
        """Everything of the node that runs."""
        found = []
        for process in psutil.process_iter():
            with suppress(ProcessLookupError, PermissionError, psutil.Error):
                if os.getsid(process.pid) == self.process.pid:
                    found.append(process)
        return found

    def actors(self, name: str) -> list[psutil.Process]:
        """Processes of the actors of a class, which Ray names so."""
        return [p for p in self.processes() if re.match(rf"ray::{name}\b", " ".join(_line(p)))]

    def kill(self) -> None:
        """Kill the raylet and all its processes at once, as if the machine had lost its power."""
        deadline = time.monotonic() + _PATIENCE
        while living := self.processes():
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes that do not end: {living}")
            for process in living:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.poll()  # Or it would stay as a zombie.
            psutil.wait_procs(living, timeout=1)
        self.process.wait()


@dataclass(frozen=True)
class TwoNodes:
    """A cluster.

    Attributes:
        address: For `ray.init(address=...)`, and in `RAY_ADDRESS` of `environment`.
        environment: What drivers need, the token included.
        head: The node on which drivers and detached actors of the head run.
        worker: The other one.
    """

    address: str
    environment: dict[str, str]
    head: Node
    worker: Node


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface on which nothing listens."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def two_nodes(cpus: int = 2) -> Iterator[TwoNodes]:
    """Start a head and a worker node, and end both.

    Args:
        cpus: Of each node, as Ray counts them.
    """
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_raylet_start_wait_time_s": f"{_PATIENCE:g}",
    }
    environment.pop("RAY_ADDRESS", None)
    with ExitStack() as stack:
        # Unix sockets below the folder must stay within 107 characters.
        folder = Path(tempfile.mkdtemp(prefix="two-nodes-", dir="/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        nodes = []
        for name, options in (
            ("head", ("--head", "--port", str(port), "--include-dashboard", "false")),
            ("worker", ("--address", address)),
        ):
            node = _start(folder, name, cpus, options, environment)
            stack.callback(node.kill)
            nodes.append(node)
            _wait_for(node, folder / name / "log")
        yield TwoNodes(address, {**environment, "RAY_ADDRESS": address}, *nodes)


def _start(
    folder: Path, name: str, cpus: int, options: tuple[str, ...], environment: dict[str, str]
) -> Node:
    own = folder / name
    own.mkdir()
    ports = free_ports(5)
    if name == "head":
        more = ("--ray-client-server-port", str(ports[0]), "--dashboard-port", str(ports[4]))
        options = (*options, *more)
    command = [
        *(str(Path(sys.executable).parent / "ray"), "start", "--block", *options),
        *("--node-ip-address", "127.0.0.1", "--num-cpus", str(cpus), "--temp-dir", str(own)),
        *("--object-store-memory", str(100 * 2**20), "--disable-usage-stats"),
        *("--include-log-monitor", "false"),  # What is not needed is not waited for.
        # At their usual ports these would meet those of another cluster on this machine.
        *("--dashboard-agent-listen-port", str(ports[1])),
        *("--runtime-env-agent-port", str(ports[2]), "--metrics-export-port", str(ports[3])),
    ]
    with (own / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    return Node(process)


def _wait_for(node: Node, log: Path) -> None:
    """Until the node says that it belongs to its cluster."""
    deadline = time.monotonic() + _PATIENCE
    while b"Ray runtime started" not in log.read_bytes():
        if node.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the node did not start: {log.read_text()}")
        time.sleep(0.1)
