"""The gate with real Ray, and an endpoint in another process that keeps accounts.

The gate's decisions are tested in simulated time (test_oracles_scheduler.py); here is one test for
each kind of fault. Tests that start a gate of their own are slow: its processes take seconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest

from conftest import SUPPORT
from fake_endpoint import Behaviour, running_endpoint
from fake_endpoint import Endpoint as Server
from modicum.errors import InputError
from modicum.oracles.endpoint.oracle import EndpointOracle
from modicum.oracles.endpoint.settings import Endpoint
from modicum.oracles.ledger.database import open_to_read
from modicum.oracles.ledger.ledger import Ledger
from modicum.oracles.protocol import Failure, Judgement, Pair, digest

KEY = "sk-test-Qx7Rw2Lm9Tz4Vb6Ny1Kp3Hs8"
PATHS = os.pathsep.join([str(SUPPORT), *map(str, filter(None, sys.path))])


@pytest.fixture(scope="module")
def session(without_shared_ray: None) -> Iterator[Path]:
    """One Ray for this file; the folder that it writes to."""
    import ray

    assert not ray.is_initialized()
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = PATHS
    # Paths of sockets must be short.
    with tempfile.TemporaryDirectory(prefix="gate-", dir="/tmp", ignore_cleanup_errors=True) as at:
        ray.init(
            address="local",
            num_cpus=2,
            _temp_dir=at,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=100 * 2**20,
        )
        yield Path(at)
        ray.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def process() -> Iterator[Server]:
    with running_endpoint() as server:
        yield server


@pytest.fixture
def server(process: Server) -> Server:
    process.set(**asdict(Behaviour()))
    process.reset()
    return process


NAMES = (f"gate {number}" for number in range(10**6))


@pytest.fixture
def endpoint(session: Path, server: Server, tmp_path: Path) -> Callable[..., Endpoint]:
    """Settings for the server: a gate and a ledger of the test's own."""
    name = next(NAMES)

    def make(**settings: Any) -> Endpoint:
        given = {
            "name": name,
            "base_url": server.base_url,
            "ledger": tmp_path / "ledger.sqlite",
            "workers": 1,
            "first_wait": 0.02,
            "longest_wait": 0.1,
            "lease": 0.6,
        }
        return Endpoint(**given | settings)

    return make


@pytest.fixture
def oracle(endpoint: Callable[..., Endpoint]) -> Iterator[Callable[..., EndpointOracle]]:
    """An oracle; of an endpoint with these settings, and closed after the test."""
    opened: list[EndpointOracle] = []

    def make(
        settings: dict[str, Any] | None = None, model: str = "judge", **more: Any
    ) -> EndpointOracle:
        made = EndpointOracle(model, "summarisation", endpoint=endpoint(**settings or {}), **more)
        opened.append(made)
        return made

    yield make
    for each in opened:
        each.close()


@pytest.fixture(scope="module")
def shared_oracle(
    session: Path, process: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EndpointOracle]:
    """One gate for the tests that need nothing else: starting one takes a while."""
    settings = Endpoint(
        name="shared",
        base_url=process.base_url,
        ledger=tmp_path_factory.mktemp("shared") / "ledger.sqlite",
        workers=2,
        first_wait=0.02,
        longest_wait=0.1,
        timeout=1.0,
    )
    with EndpointOracle("judge", "summarisation", endpoint=settings) as made:
        yield made


@pytest.fixture
def shared(shared_oracle: EndpointOracle, server: Server) -> EndpointOracle:
    return shared_oracle


def pairs(count: int, start: int = 0, prompt: str = "post") -> list[Pair]:
    """Pairs of which the first is the better one at even numbers."""
    texts = ("fine quality=0.9", "poor quality=0.1")
    return [
        Pair(f"{prompt} {number}", *(texts if number % 2 == 0 else texts[::-1]))
        for number in range(start, start + count)
    ]


def truth(given: Sequence[Pair]) -> list[str]:
    return ["first" if pair.first.startswith("fine") else "second" for pair in given]


def winners(answers: Sequence[Judgement | Failure]) -> list[str]:
    return [a.winner if isinstance(a, Judgement) else a.reason for a in answers]


def table(oracle: EndpointOracle, what: str = "*") -> list[dict[str, Any]]:
    """Rows of the ledger."""
    with contextlib.closing(open_to_read(oracle.endpoint.ledger_file)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT {what} FROM requests ORDER BY id")]


def states(oracle: EndpointOracle) -> Counter[str]:
    return Counter(row["state"] for row in table(oracle))


def until(true: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


def in_background(call: Callable[[], Any]) -> Any:
    """A future."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call)
    pool.shutdown(wait=False)
    return future


def gate_of(oracle: EndpointOracle) -> int:
    """The process of an oracle's gate, which its ledger's lock names."""
    holder = Path(f"{oracle.endpoint.ledger_file}.holder").read_text()
    return int(holder.split()[1])


def actors() -> list[dict[str, Any]]:
    """Living actors of this file's Ray."""
    import ray

    return [each for each in ray._private.state.actors().values() if each["State"] == "ALIVE"]


def gates() -> set[int]:
    """Processes of gates."""
    return {each["Pid"] for each in actors() if each["ActorClassName"] == "Gate"}


def workers_of(gate: int) -> list[int]:
    """Processes of a gate's workers."""
    (port,) = [each["Address"]["Port"] for each in actors() if each["Pid"] == gate]
    return [each["Pid"] for each in actors() if each["OwnerAddress"]["Port"] == port]


# Answers.


def test_every_pair_is_right_and_remembered(shared, server):
    judge, given = shared, pairs(60)
    first = judge.judge(given)
    assert winners(first) == truth(given)
    assert {answer.order_shown for answer in first} == {"given", "swapped"}
    assert not any(answer.cached for answer in first)
    assert all(answer.latency > 0 and answer.rationale for answer in first)
    log = server.log()
    assert sum(answer.prompt_tokens for answer in first) == log.tokens[0]
    assert sum(answer.completion_tokens for answer in first) == log.tokens[1]
    assert (len(log), log.repeats()) == (60, 0)
    again = judge.judge(given)
    assert winners(again) == truth(given)
    assert [answer.rationale for answer in again] == [answer.rationale for answer in first]
    assert all(answer.cached and answer.prompt_tokens == 0 for answer in again)
    assert len(server.log()) == 60
    # Another opinion is another question; the same number is the same opinion.
    other = judge.judge(given[:20], repeat=1)
    assert not any(answer.cached for answer in other)
    assert len(server.log()) == 80
    assert all(answer.cached for answer in judge.judge(given[:20], repeat=1))
    assert len(server.log()) == 80
    assert judge.judge([]) == []


def test_duplicates_are_asked_once(shared, server):
    given = [*pairs(3, prompt="d"), *pairs(3, prompt="d"), *pairs(1, prompt="d")]
    answers = shared.judge(given)
    assert winners(answers) == truth(given)
    assert [answer.cached for answer in answers] == [False] * 3 + [True] * 4
    assert len(server.log()) == 3
    # The same texts under other seeds have the same two questions between them.
    seeded = [Pair("x", "fine quality=0.9", "poor quality=0.1", seed=n) for n in range(20)]
    assert winners(shared.judge(seeded)) == ["first"] * 20
    assert len(server.log()) == 5


@pytest.mark.slow
def test_an_oracle_travels(oracle, server):
    import ray

    judge, given = oracle(run="travels"), pairs(10)
    judge.judge(given[:5])

    @ray.remote(num_cpus=0)
    def elsewhere(oracle: EndpointOracle, given: list[Pair]) -> list[Any]:
        with oracle:
            return oracle.judge(given)

    answers = ray.get([elsewhere.remote(judge, given) for _ in range(2)])
    assert winners(answers[0]) == winners(answers[1]) == truth(given)
    assert (len(server.log()), server.log().repeats()) == (10, 0)
    assert {row["run"] for row in table(judge, "run")} == {"travels"}


# Faults.


@pytest.mark.parametrize("fault", ["rate_limited_retry_after", "dropped_midway", "empty"])
def test_each_fault_once(shared, server, fault):
    server.set(script=[fault], retry_after=0.5)
    before, seen = shared.status()["spent"], len(table(shared))
    (answer,) = shared.judge(pairs(1, prompt=fault))
    assert winners([answer]) == ["first"]
    failed, right = table(shared)[seen:]
    assert right["state"] == "answered"
    spent = shared.status()["spent"] - before
    charged = failed["prompt_tokens"] + failed["completion_tokens"]
    used = right["prompt_tokens"] + right["completion_tokens"]
    if fault == "rate_limited_retry_after":
        arrived, finished = server.log().arrived, server.log().finished
        assert 0.45 <= arrived[1] - finished[0] < 4
        assert (failed["state"], charged) == ("refused", 0)
        assert (spent.calls, spent.tokens) == (1, used)
    elif fault == "dropped_midway":
        assert (failed["state"], charged) == ("lost", 0)
        assert (spent.calls, spent.tokens) == (2, used + failed["reserved_tokens"])
    else:
        assert failed["state"] == "unreadable"
        assert (spent.calls, spent.tokens) == (2, used + charged)
        assert spent.tokens == sum(server.log().tokens)


# What is fatal, and what is so for one pair only.


@pytest.mark.slow
def test_a_wrong_key(oracle, server, tmp_path):
    server.set(api_key="another", key_echo="all")
    (tmp_path / "key").write_text(KEY)
    judge = oracle({"key_file": tmp_path / "key", "limits": {"concurrent_requests": 4}})
    with pytest.raises(InputError, match="does not accept the key") as raised:
        judge.judge(pairs(200))
    assert KEY not in "".join(traceback.format_exception(raised.value))
    assert len(server.log()) <= 8
    until(lambda: judge.status()["in_flight"] == 0)
    server.set(api_key=KEY)
    assert winners(judge.judge(pairs(4))) == truth(pairs(4))


@pytest.mark.slow
def test_no_key(oracle, endpoint, tmp_path):
    with pytest.raises(InputError, match="MODICUM_NO_SUCH_KEY is not set"):
        oracle({"key_variable": "MODICUM_NO_SUCH_KEY"}).judge(pairs(1))
    with pytest.raises(InputError, match="key_file"):
        oracle({"key_file": tmp_path / "none"}).judge(pairs(1))
    # A gate that could not be opened does not stay.
    name = f"gate-{digest(endpoint().gate)[:16]}"
    until(lambda: name not in {each["Name"] for each in actors()})


@pytest.mark.slow
def test_nothing_answers(oracle):
    judge = oracle({"base_url": "http://127.0.0.1:9/v1"})
    started = time.monotonic()
    with pytest.raises(InputError, match="base_url: nothing answers at"):
        judge.judge(pairs(50))
    assert time.monotonic() - started < 60  # Most of it is the start of a gate.


@pytest.mark.slow
def test_no_structured_output(oracle, server):
    server.set(response_format=False)
    judge, given = oracle({"limits": {"concurrent_requests": 4}}), pairs(30)
    assert winners(judge.judge(given)) == truth(given)
    assert server.log().outcomes["unsupported"] <= 8
    assert server.log().outcomes["answered"] == 30


# Leases, and processes that die.


@pytest.mark.slow
def test_a_gate_ends_after_its_last_client(oracle, server):
    judge = oracle({"lease": 2, "workers": 2})
    judge.judge(pairs(3))
    gate = gate_of(judge)
    assert gate in gates()
    with pytest.raises(InputError, match=f"in use by process {gate}"):
        Ledger(judge.endpoint.ledger_file)
    judge.close()
    closed = time.monotonic()
    time.sleep(1)
    other = oracle({"lease": 2, "workers": 2})
    other.judge(pairs(4))  # Within the lease: the same gate.
    assert gate_of(other) == gate
    before = workers_of(gate)
    assert len(before) == 2
    other.close()
    closed = time.monotonic()
    until(lambda: gate not in gates() and not any(map(psutil.pid_exists, before)))
    assert 1.9 < time.monotonic() - closed < 15
    ledger = Ledger(judge.endpoint.ledger_file)
    assert ledger.orphans == 0
    ledger.close()
    assert winners(judge.judge(pairs(5))) == truth(pairs(5))
    assert len(server.log()) == 5
    assert gate_of(judge) != gate


def test_other_settings_are_refused(shared):
    for changed in ({"timeout": 7.0}, {"workers": 3}, {"limits": {"requests_per_minute": 5}}):
        other = Endpoint(**shared.endpoint.model_dump() | changed)
        with (
            EndpointOracle("judge", "summarisation", endpoint=other) as refused,
            pytest.raises(InputError, match=f"runs with {next(iter(changed))} .*use the same"),
        ):
            refused.judge(pairs(1))


@pytest.mark.slow
def test_a_client_that_was_let_go_by_mistake_asks_again(oracle, server):
    """As after a long sleep of its process: its questions are given up, and it must not hang."""
    import ray

    server.set(delay=0.2)
    judge, given = oracle({"limits": {"concurrent_requests": 2}}), pairs(20)
    answers = in_background(lambda: judge.judge(given))
    until(lambda: server.counters()["requests"] >= 4)
    lease = judge._connection.lease()
    ray.get(lease.gate.detach.remote(lease.client))
    assert winners(answers.result(60)) == truth(given)
    assert server.log().repeats() == 0


CLIENT = """
import sys
import ray
from modicum.oracles.endpoint.oracle import EndpointOracle
from modicum.oracles.endpoint.settings import Endpoint
from modicum.oracles.protocol import Pair

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
endpoint = Endpoint(**eval(sys.argv[2]))
count, start = int(sys.argv[3]), int(sys.argv[4])
texts = ("fine quality=0.9", "poor quality=0.1")
given = [
    Pair(f"post {n}", *(texts if n % 2 == 0 else texts[::-1])) for n in range(start, start + count)
]
oracle = EndpointOracle("judge", "summarisation", endpoint=endpoint, run="client")
answers = oracle.judge(given)
print(*(getattr(answer, "winner", "none") for answer in answers), flush=True)
"""


@contextlib.contextmanager
def client(settings: Endpoint, count: int, start: int = 0) -> Iterator[subprocess.Popen[str]]:
    """A client in a process of its own on this file's cluster."""
    import ray

    values = repr(settings.model_dump(mode="json"))
    address = ray.get_runtime_context().gcs_address
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, address, values, str(count), str(start)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_two_processes_at_once_ask_once(endpoint, server):
    server.set(delay=0.5)
    settings = endpoint(lease=5.0, limits={"concurrent_requests": 4})
    with client(settings, 40) as one, client(settings, 40) as other:
        said = [each.communicate(timeout=120)[0].split() for each in (one, other)]
    assert said == [truth(pairs(40))] * 2
    assert (len(server.log()), server.log().repeats()) == (40, 0)


@pytest.mark.slow
def test_a_client_that_is_killed_loses_its_lease(endpoint, server, oracle):
    """What it had not sent is not sent; another client goes on, and gets what it had."""
    server.set(delay=1.0)
    settings = {"limits": {"concurrent_requests": 2}, "lease": 20.0}
    judge = oracle(settings)
    assert winners(judge.judge(pairs(2, start=1000))) == truth(pairs(2))
    with client(endpoint(**settings), 400) as killed:
        until(lambda: server.counters()["requests"] >= 6, 60)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    until(lambda: judge.status()["clients"] == 1, 40)
    until(lambda: judge.status()["in_flight"] == 0, 10)
    assert judge.status()["waiting"] == 0
    sent = server.counters()["requests"]
    time.sleep(2)
    assert server.counters()["requests"] == sent < 100
    server.set(delay=0.0)
    assert winners(judge.judge(pairs(60))) == truth(pairs(60))
    assert server.log().repeats() == 0


@pytest.mark.slow
def test_a_gate_that_is_killed_is_replaced(oracle, server):
    """By the client itself; what was under way counts as spent, and is asked again."""
    server.set(delay=0.1)
    judge, given = oracle({"limits": {"concurrent_requests": 4}, "lease": 5.0}), pairs(80)
    answers = in_background(lambda: judge.judge(given))
    until(lambda: server.counters()["requests"] >= 20, 60)
    os.kill(gate_of(judge), signal.SIGKILL)
    assert winners(answers.result(120)) == truth(given)
    found, log = states(judge), server.log()
    assert found["answered"] == 80
    assert 0 < found["lost"] <= 4
    assert set(found) == {"answered", "lost"}
    assert judge.status()["orphans"] == found["lost"]
    assert log.repeats() <= 4
    assert judge.status()["spent"].calls == 80 + found["lost"] >= len(log)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(oracle, server):
    server.set(delay=0.1)
    judge, given = oracle({"limits": {"concurrent_requests": 4}}), pairs(80)
    answers = in_background(lambda: judge.judge(given))
    until(lambda: server.counters()["requests"] >= 20, 60)
    os.kill(workers_of(gate_of(judge))[0], signal.SIGKILL)
    assert winners(answers.result(120)) == truth(given)
    found = states(judge)
    assert found["answered"] == 80
    assert 0 < found["lost"] <= 4
    assert server.log().repeats() <= 4
    assert server.log().maximum_concurrency == 4
    until(lambda: len(workers_of(gate_of(judge))) == 1)


@pytest.mark.slow
def test_a_ledger_that_cannot_be_opened(oracle, tmp_path):
    held = Ledger(tmp_path / "ledger.sqlite")
    with pytest.raises(InputError, match=f"is in use by process {os.getpid()} on"):
        oracle().judge(pairs(1))
    held.close()
    (tmp_path / "ledger.sqlite").write_bytes(b"pair,winner\n" * 1000)
    with pytest.raises(InputError, match="is damaged"):
        oracle().judge(pairs(1))
    (tmp_path / "ledger.sqlite").unlink()
    assert winners(oracle().judge(pairs(1))) == ["first"]


@pytest.mark.slow
def test_a_ledger_that_cannot_be_written_for_a_while(oracle, server):
    """Nothing is sent that was not written down; what was answered before is there."""
    judge = oracle()
    judge.judge(pairs(3))
    with contextlib.closing(
        sqlite3.connect(judge.endpoint.ledger_file, isolation_level=None)
    ) as other:
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON requests BEGIN "
            "SELECT RAISE(ABORT, 'no room'); END"
        )
        with pytest.raises(InputError, match=r"ledger: .* cannot be written \(no room\)"):
            judge.judge(pairs(20))
        assert len(server.log()) == 3
        assert judge.status()["reserved"].calls == 0
        other.execute("DROP TRIGGER full")
    assert winners(judge.judge(pairs(20))) == truth(pairs(20))
    assert server.log().repeats() == 0


AGAIN = """
import sys, tempfile
import ray
from modicum.oracles.endpoint.oracle import EndpointOracle
from modicum.oracles.endpoint.settings import Endpoint
from modicum.oracles.protocol import Pair

def start(at):
    ray.init(
        address="local", num_cpus=1, _temp_dir=at, include_dashboard=False, log_to_driver=False,
        logging_level="ERROR",
    )

with tempfile.TemporaryDirectory(prefix="gate-", dir="/tmp", ignore_cleanup_errors=True) as at:
    oracle = EndpointOracle("judge", "summarisation", endpoint=Endpoint(**eval(sys.argv[1])))
    for _ in range(2):
        start(at)
        (answer,) = oracle.judge([Pair("p", "fine quality=0.9", "poor quality=0.1")])
        print(answer.winner, answer.cached, flush=True)
        ray.shutdown()
    oracle.close()
"""


@pytest.mark.slow
def test_an_oracle_outlives_ray(endpoint):
    """Every private cluster numbers its jobs alike, and a handle of the last one is of no use."""
    values = repr(endpoint().model_dump(mode="json"))
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, values],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "RAY_ADDRESS": ""},
        check=False,
    )
    assert done.stdout.splitlines() == ["first False", "first True"], done.stderr
