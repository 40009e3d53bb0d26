"""A Ray cluster of two nodes on this machine, to try out clusters and their faults.

From the shell:

    eval "$(python cluster/two_nodes.py start)"   # addresses and token for the commands that follow
    modicum submit tune_configs/quickstart.yaml
    python cluster/two_nodes.py kill-worker       # as if the machine had lost its power
    python cluster/two_nodes.py add-worker
    python cluster/two_nodes.py restart-head
    python cluster/two_nodes.py stop

From Python:

    with two_nodes() as cluster:
        subprocess.run([sys.executable, "program.py"], env=cluster.environment)
        cluster.worker.kill()

Each node is started by `ray start` in a session of processes (a raylet, its agents and its
workers), so that stopping the node ends exactly these. Token authentication is on, all servers
listen on the loopback interface, and no port is one of Ray's usual ones, so other clusters on this
machine are not disturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

# Timeout for the start and the end of a node, seconds.
_PATIENCE = 240.0

_STATE = "cluster.json"
_FOLDER = "MODICUM_TWO_NODES"


@dataclass(frozen=True)
class Node:
    """A node of the cluster.

    Attributes:
        pid: Process id of `ray start`, which leads the session.
        created: Creation time of that process, which tells it from a later one with the same id.
    """

    pid: int
    created: float

    def processes(self) -> list[psutil.Process]:
        """Running processes of the node."""
        found = []
        for process in psutil.process_iter():
            with suppress(ProcessLookupError, PermissionError, psutil.Error):
                if os.getsid(process.pid) == self.pid and process.create_time() >= self.created:
                    found.append(process)
        return found

    def actors(self, name: str) -> list[psutil.Process]:
        """Processes of actors, by the name of their class."""
        return [p for p in self.processes() if re.match(rf"ray::{name}\b", " ".join(_line(p)))]

    def alive(self) -> bool:
        """True if `ray start` of this node runs."""
        try:
            process = psutil.Process(self.pid)
            running = process.status() != psutil.STATUS_ZOMBIE
            return running and process.create_time() == self.created
        except psutil.NoSuchProcess:
            return False

    def leave(self) -> None:
        """Have the node leave the cluster: `ray start` ends what it has started."""
        with suppress(psutil.NoSuchProcess):
            psutil.Process(self.pid).terminate()
            psutil.wait_procs(self.processes(), timeout=_PATIENCE / 8)
        self.kill()

    def kill(self) -> None:
        """Kill all processes of the node, as if the machine had lost power.

        Raises:
            RuntimeError: Some processes do not end.
        """
        deadline = time.monotonic() + _PATIENCE
        while living := self.processes():
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes that do not end: {living}")
            for process in living:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            with suppress(ChildProcessError):  # A child must be waited for, or it stays a zombie.
                os.waitpid(self.pid, os.WNOHANG)
            psutil.wait_procs(living, timeout=1)


@dataclass(frozen=True)
class Ports:
    """Ports of the head on the loopback interface.

    Attributes:
        gcs: Port for nodes and drivers.
        dashboard: Port of Ray's dashboard and job API.
        client: Port for Ray Client.
    """

    gcs: int
    dashboard: int
    client: int


class TwoNodes:
    """A cluster of a head and a worker node.

    Args:
        folder: Empty folder for logs, sockets and the token; its path has at most 40 characters,
            because Unix sockets lie below it.
        cpus: Number of CPUs of each node, as Ray counts them.
        dashboard: Start Ray's dashboard on the head, and with it the job API.
        hidden: Folder that worker nodes do not see, as on machines without a shared disk; needs the
            permission to create mount namespaces.

    Attributes:
        address: Address for `ray.init(address=...)` and `modicum run --address`.
        job_url: URL for `ray job submit --address` and `modicum submit --address`.
        head: Node on which drivers run.
        worker: Worker node that joined last.
    """

    def __init__(
        self,
        folder: Path,
        cpus: int = 2,
        dashboard: bool = False,
        hidden: Path | None = None,
    ) -> None:
        self.folder, self.cpus, self.dashboard, self.hidden = folder, cpus, dashboard, hidden
        self.ports = Ports(*free_ports(3))
        self.token = folder / "token"
        self.token.touch(0o600)
        self.token.write_text(secrets.token_hex(32))
        self._nodes: list[Node] = []

    @property
    def address(self) -> str:
        """`host:port` of the head."""
        return f"127.0.0.1:{self.ports.gcs}"

    @property
    def job_url(self) -> str:
        """URL of the job API and of Ray's dashboard."""
        return f"http://127.0.0.1:{self.ports.dashboard}"

    @property
    def head(self) -> Node:
        """The node on which drivers run."""
        return self._nodes[0]

    @property
    def worker(self) -> Node:
        """The node that joined last."""
        return self._nodes[-1]

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables for drivers, including the path of the token."""
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_ADDRESS": self.address,
        }

    @property
    def environment(self) -> dict[str, str]:
        """Environment of this process with the variables for drivers."""
        kept = {k: v for k, v in os.environ.items() if k != "RAY_AUTH_TOKEN"}
        programs = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
        return {**kept, "PATH": programs, **self.variables}

    def start(self) -> None:
        """Start both nodes.

        Raises:
            RuntimeError: A node does not start.
        """
        self._start_head()
        self.add_worker()

    def add_worker(self) -> Node:
        """Start another worker node and wait until it has joined.

        Raises:
            RuntimeError: The node does not start.
        """
        node = self._start_node(f"worker{len(self._nodes)}", ("--address", self.address))
        self._nodes.append(node)
        self._remember()
        return node

    def restart_head(self) -> None:
        """Kill all nodes, and start a new head at the same ports and a worker.

        A head without a database keeps its state in memory. The new head knows neither jobs nor
        nodes, and old worker nodes cannot join it: their raylets would end within a minute.

        Raises:
            RuntimeError: A node does not start.
        """
        self.stop()
        self._nodes = []
        self._start_head()
        self.add_worker()

    def stop(self) -> None:
        """Kill every node, the head last."""
        for node in reversed(self._nodes):
            node.kill()

    def _start_head(self) -> None:
        options = (
            *("--head", "--port", str(self.ports.gcs)),
            *("--ray-client-server-port", str(self.ports.client)),
            *("--include-dashboard", str(self.dashboard).lower()),
            *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(self.ports.dashboard)),
        )
        self._nodes.append(self._start_node("head", options))
        self._remember()

    def _start_node(self, name: str, options: tuple[str, ...]) -> Node:
        own = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))
        agent, environment_agent, metrics = free_ports(3)
        command = [
            *(str(Path(sys.executable).parent / "ray"), "start", "--block", *options),
            *("--node-ip-address", "127.0.0.1", "--num-cpus", str(self.cpus)),
            *("--object-store-memory", str(100 * 2**20), "--disable-usage-stats"),
            *("--temp-dir", str(own)),
            *("--include-log-monitor", "false"),  # Not needed, and its start takes time.
            # The usual ports may be taken by another cluster on this machine.
            *("--dashboard-agent-listen-port", str(agent)),
            *("--runtime-env-agent-port", str(environment_agent)),
            *("--metrics-export-port", str(metrics)),
        ]
        if self.hidden is not None and name != "head":
            # Mount an empty file system over the folder, which only this node's processes see.
            empty = f"mount -t tmpfs tmpfs {shlex.quote(str(self.hidden))} && exec {{}}"
            command = ["unshare", "--mount", "sh", "-c", empty.format(shlex.join(command))]
        environment = {**self.environment, "RAY_raylet_start_wait_time_s": f"{_PATIENCE:g}"}
        # A head would try to join the cluster at this address.
        del environment["RAY_ADDRESS"]
        log = own / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                command, stdout=file, stderr=file, env=environment, start_new_session=True
            )
        node = Node(process.pid, psutil.Process(process.pid).create_time())
        deadline = time.monotonic() + _PATIENCE
        while b"Ray runtime started" not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                node.kill()
                raise RuntimeError(f"the node did not start: {log.read_text()}")
            time.sleep(0.1)
        if name == "head" and self.dashboard:
            self._wait_for_jobs(deadline)
        return node

    def _wait_for_jobs(self, deadline: float) -> None:
        """Wait until the job API answers."""
        while time.monotonic() < deadline:
            with (
                suppress(OSError),
                socket.create_connection(("127.0.0.1", self.ports.dashboard), timeout=1),
            ):
                return
            time.sleep(0.1)
        raise RuntimeError(f"the job API does not answer at {self.job_url}")

    # State between commands of the shell.

    def _remember(self) -> None:
        state = {
            "cpus": self.cpus,
            "dashboard": self.dashboard,
            "ports": asdict(self.ports),
            "nodes": [asdict(node) for node in self._nodes],
        }
        (self.folder / _STATE).write_text(json.dumps(state))

    @classmethod
    def found(cls, folder: Path) -> TwoNodes:
        """Return the cluster that was started in a folder.

        Raises:
            FileNotFoundError: No cluster was started there.
        """
        state = json.loads((folder / _STATE).read_text())
        cluster = cls.__new__(cls)
        cluster.folder, cluster.token, cluster.hidden = folder, folder / "token", None
        cluster.cpus, cluster.dashboard = state["cpus"], state["dashboard"]
        cluster.ports = Ports(**state["ports"])
        cluster._nodes = [Node(**node) for node in state["nodes"]]
        return cluster


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def free_ports(count: int) -> list[int]:
    """Unused ports of the loopback interface."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _new_folder() -> Path:
    # Unix sockets below the folder must stay within 107 characters.
    return Path(tempfile.mkdtemp(prefix="two-nodes-", dir="/tmp"))


@contextmanager
def two_nodes(
    cpus: int = 2, dashboard: bool = False, hidden: Path | None = None
) -> Iterator[TwoNodes]:
    """Start a head and a worker node for a block, and stop all nodes of the cluster after it.

    Args:
        cpus: Number of CPUs of each node, as Ray counts them.
        dashboard: Start Ray's dashboard on the head, and with it the job API.
        hidden: Folder that worker nodes do not see.
    """
    folder = _new_folder()
    cluster = TwoNodes(folder, cpus, dashboard, hidden)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _exports(variables: Mapping[str, str]) -> str:
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())


def _start(folder: Path | None, cpus: int) -> None:
    cluster = TwoNodes(_new_folder() if folder is None else folder, cpus, dashboard=True)
    try:
        cluster.start()
    except BaseException:
        cluster.stop()
        raise
    shell = {
        **cluster.variables,
        # Read by `modicum submit` and `ray job submit`.
        "RAY_API_SERVER_ADDRESS": cluster.job_url,
        _FOLDER: str(cluster.folder),
    }
    print(_exports(shell))
    print(
        f"two nodes run: jobs at {cluster.job_url}, drivers join {cluster.address}", file=sys.stderr
    )


def _status(cluster: TwoNodes) -> None:
    for number, node in enumerate(cluster._nodes):
        name = "head" if number == 0 else f"worker {number}"
        state = f"runs, {len(node.processes())} processes" if node.alive() else "has ended"
        print(f"{name}: {state}")
    print(f"jobs: {cluster.job_url}\ndrivers: {cluster.address}")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = ("start", "status", "kill-worker", "add-worker", "restart-head", "stop")
    parser.add_argument("command", choices=commands)
    parser.add_argument("--cpus", type=int, default=1, help="CPUs of each node")
    parser.add_argument(
        "--folder", type=Path, help=f"folder of the cluster; ${_FOLDER} if left out"
    )
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if given.command == "start":
        if given.folder is not None:
            given.folder.mkdir(parents=True, exist_ok=True)
        _start(given.folder, given.cpus)
        return
    folder = given.folder or os.environ.get(_FOLDER)
    if folder is None or not (Path(folder) / _STATE).is_file():
        sys.exit(f"error: --folder: give the folder of a cluster, or set {_FOLDER}")
    cluster = TwoNodes.found(Path(folder))
    if given.command == "status":
        _status(cluster)
    elif given.command == "kill-worker":
        cluster.worker.kill()
    elif given.command == "add-worker":
        cluster.add_worker()
    elif given.command == "restart-head":
        cluster.restart_head()
    else:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
