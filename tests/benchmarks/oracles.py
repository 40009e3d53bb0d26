"""The oracles' gate under load, on a two-node Ray cluster on this machine. Three parts.

The server is tests/support/fake_endpoint: a process of its own with real HTTP on the loopback
interface. Questions have the length of a forum post of TL;DR with two short summaries.

throughput: requests a second without a limit, compared with OpenAI's client on the same server. No
    question is asked twice; contenders take turns, so a busy moment affects them all; the figures
    are medians. The rate comes from the server's log; the processor time is that of this process
    and all its descendants but the server.
pacing: distance of the rate from a limit, over the whole load and in any 10 s.
faults: 30% faults of all kinds while drivers, a node and the gate are killed: requests that are
    lost, flipped, repeated or overspent.

The exit status is 1 for problems (never for slowness), which are printed.
Run: python tests/benchmarks/oracles.py [--part throughput|pacing|faults] [--pairs 5000]
     [--limit 3000] [--workers 8] [--requests 2000] [--concurrency 32] [--repeats 5] [--delay 0.0]
     [--only NAME]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from openai import AsyncOpenAI, DefaultAioHttpClient

from modicum.oracles.endpoint.oracle import EndpointOracle
from modicum.oracles.endpoint.settings import Endpoint as Settings
from modicum.oracles.protocol import Judgement, Letter, Pair, show, winner_of
from modicum.ray_support.connection import connected

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "cluster"))
from two_nodes import two_nodes

from fake_endpoint import Endpoint, running_endpoint
from oracle_load import better, pairs
from oracle_load.faults import faults
from oracle_load.pacing import pacing

SYSTEM = "You are a helpful assistant that evaluates the quality of summaries for internet posts."
USER = """Which of the following summaries does a better job of summarizing the most important \
points in the given forum post, without including unimportant or irrelevant details?

Post:
{prompt}

Summary A:
{a}

Summary B:
{b}

First, provide a one-sentence comparison of the two summaries, which you prefer and why. Second, \
on a new line, state only "A" or "B" to indicate your choice.

You must choose A or B for the preferred answer even if neither summary is very good.

Your response should use the format:
Comparison: <one-sentence comparison and explanation>
Preferred: <"A" or "B">"""
WARM_UP = 200  # Requests of the first turn, which is not counted.

Judge = Callable[[Sequence[Pair]], None]
Contender = Callable[[Endpoint, int], AbstractContextManager[Judge]]


@dataclass(frozen=True)
class Turn:
    """One contender's turn.

    Attributes:
        rate: Requests a second, from the first arrival at the server to the last.
        client: Microseconds of processor time for each request, without the server's.
        server: Microseconds of the server's processor time for each request.
    """

    rate: float
    client: float
    server: float


@contextmanager
def bare_client(endpoint: Endpoint, concurrency: int, *, aiohttp: bool = False) -> Iterator[Judge]:
    """OpenAI's client as its documentation shows it, in one process.

    Args:
        endpoint: The server.
        concurrency: Requests in flight at once.
        aiohttp: Use the faster of the client's two HTTP libraries.
    """

    async def ask(pair: Pair) -> None:
        a, b = show(pair, pair.order)
        completion = await client.chat.completions.create(
            model="judge",
            messages=[
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": USER.format(prompt=pair.prompt, a=a, b=b)},
            ],
            temperature=0,
        )
        content = completion.choices[0].message.content
        assert content is not None
        letter: Letter = "A" if content.endswith('Preferred: "A"') else "B"
        assert winner_of(letter, pair.order) == better(pair)

    async def all_of(given: Sequence[Pair]) -> None:
        waiting = iter(given)

        async def work() -> None:
            for pair in waiting:
                await ask(pair)

        await asyncio.gather(*(work() for _ in range(concurrency)))

    async def opened() -> AsyncOpenAI:
        http = DefaultAioHttpClient() if aiohttp else None
        return AsyncOpenAI(
            base_url=endpoint.base_url, api_key="any", max_retries=0, http_client=http
        )

    with asyncio.Runner() as runner:
        client = runner.run(opened())
        yield lambda given: runner.run(all_of(given))
        runner.run(client.close())


@contextmanager
def gate(endpoint: Endpoint, concurrency: int, *, workers: int = 8) -> Iterator[Judge]:
    """The gate with its workers on two nodes, asked by this process as by a user's program."""
    with TemporaryDirectory() as folder, two_nodes() as cluster:
        os.environ.update(cluster.environment)
        settings = Settings(
            base_url=endpoint.base_url,
            limits={"concurrent_requests": concurrency},
            workers=workers,
            ledger=Path(folder) / "ledger.sqlite",
        )
        with connected(), EndpointOracle("judge", "summarisation", endpoint=settings) as oracle:

            def judge(given: Sequence[Pair]) -> None:
                for pair, answer in zip(given, oracle.judge(given), strict=True):
                    assert isinstance(answer, Judgement)
                    assert answer.winner == better(pair)

            yield judge


BARE, GATE = "bare openai client", "modicum gate"
CONTENDERS: dict[str, Contender] = {
    BARE: bare_client,
    "bare openai client, aiohttp": partial(bare_client, aiohttp=True),
    GATE: gate,
}


def processor_seconds(without: int) -> float:
    """Processor time of this process and its living descendants, except for one."""
    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        if process.pid != without:
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
    return total


def take_turn(judge: Judge, endpoint: Endpoint, given: Sequence[Pair]) -> Turn:
    """Let a contender judge pairs, and check that the server was asked each question once."""
    endpoint.reset()
    client = processor_seconds(without=endpoint.pid)
    server = endpoint.counters()["cpu_seconds"]
    judge(given)
    client = processor_seconds(without=endpoint.pid) - client
    server = endpoint.counters()["cpu_seconds"] - server
    log = endpoint.log()
    assert log.outcomes == {"answered": len(given)}
    assert log.repeats() == 0
    return Turn(log.rate, client / len(given) * 1e6, server / len(given) * 1e6)


def measure(
    contenders: dict[str, Contender], *, requests: int, concurrency: int, repeats: int, delay: float
) -> dict[str, list[Turn]]:
    """Turns of each contender, without the first turn, a short warm-up.

    Args:
        contenders: Contenders by name.
        requests: Requests in each turn.
        concurrency: Requests in flight at once.
        repeats: Number of turns.
        delay: Seconds before each answer.
    """
    turns: dict[str, list[Turn]] = {name: [] for name in contenders}
    with running_endpoint(delay=delay) as endpoint, ExitStack() as stack:
        judges = {
            name: stack.enter_context(contender(endpoint, concurrency))
            for name, contender in contenders.items()
        }
        seed = 0
        for repeat in range(repeats + 1):
            for name, judge in judges.items():
                seed += 1
                given = pairs(requests if repeat else WARM_UP, seed)
                turn = take_turn(judge, endpoint, given)
                if repeat:
                    turns[name].append(turn)
    return turns


def medians(turns: Sequence[Turn]) -> Turn:
    """The median of each figure."""
    tables = [asdict(turn) for turn in turns]
    return Turn(**{name: statistics.median(t[name] for t in tables) for name in tables[0]})


def throughput(arguments: argparse.Namespace) -> list[str]:
    """Print a table, and all figures as a line of JSON."""
    contenders = {**CONTENDERS, GATE: partial(gate, workers=arguments.workers)}
    turns = measure(
        {name: contenders[name] for name in arguments.only or contenders},
        requests=arguments.requests,
        concurrency=arguments.concurrency,
        repeats=arguments.repeats,
        delay=arguments.delay,
    )
    found = {name: medians(each) for name, each in turns.items()}
    print(f"{'contender':30} {'requests/s':>10} {'of bare':>8} {'client us':>10} {'server us':>10}")
    for name, turn in found.items():
        share = f"{turn.rate / found[BARE].rate:.0%}" if BARE in found else ""
        print(f"{name:30} {turn.rate:10,.0f} {share:>8} {turn.client:10,.0f} {turn.server:10,.0f}")
    print(
        json.dumps(
            {
                "requests": arguments.requests,
                "concurrency": arguments.concurrency,
                "delay": arguments.delay,
                "turns": {name: [asdict(turn) for turn in each] for name, each in turns.items()},
            }
        )
    )
    return []


def load(arguments: argparse.Namespace) -> list[str]:
    """Run a load, print a table and a line of JSON, and return the problems."""
    part = {"pacing": pacing, "faults": faults}[arguments.part]
    with TemporaryDirectory() as folder:
        found = part(
            Path(folder), count=arguments.pairs, limit=arguments.limit, workers=arguments.workers
        )
    for name, value in asdict(found).items():
        print(f"{name:20} {value}")
    problems = found.problems()
    print(json.dumps({**asdict(found), "problems": problems}))
    return problems


def main() -> None:
    """Run one part, and fail if there are problems."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ("throughput", "pacing", "faults")
    parser.add_argument("--part", choices=parts, default="throughput")
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--limit", type=float, default=3000.0)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--only", choices=CONTENDERS, action="append")
    arguments = parser.parse_args()
    problems = throughput(arguments) if arguments.part == "throughput" else load(arguments)
    for problem in problems:
        print(f"wrong: {problem}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
