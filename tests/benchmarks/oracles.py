"""Requests a second to an endpoint, beside the bare client of OpenAI on the same server.

The server is tests/fake_endpoint: its own process, real HTTP on the loopback interface. Every
contender asks the same number of questions, of the length of a forum post of TL;DR with two short
summaries, and no question twice; contenders take turns, so that a busy moment meets them all;
medians. The rate is what the server saw, processor time that of this process and all its
descendants but the server.
Run: python tests/benchmarks/oracles.py [--requests 2000] [--concurrency 32] [--repeats 5]
     [--delay 0.0] [--only NAME]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from openai import AsyncOpenAI

from modicum.oracles.protocol import Letter, Pair, show, winner_of

sys.path.insert(0, str(Path(__file__).parent.parent))
from fake_endpoint import Endpoint, running_endpoint

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
VOCABULARY = "the my we was it told year friend moved job never because money house asked then"
POST_WORDS, SUMMARY_WORDS = 270, 25  # TL;DR's posts and summaries, about.
WARM_UP = 200  # Requests of the turn that does not count.

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


def pairs(count: int, seed: int) -> list[Pair]:
    """Pairs of which the server knows the better one."""
    draws = random.Random(seed)
    vocabulary = VOCABULARY.split()

    def text(words: int) -> str:
        return " ".join(draws.choices(vocabulary, k=words))

    def summary() -> str:
        return f"{text(SUMMARY_WORDS)} quality={draws.random():.6f}"

    return [
        Pair(prompt=f"{text(POST_WORDS)} {seed}-{number}", first=summary(), second=summary())
        for number in range(count)
    ]


def better(pair: Pair) -> str:
    """The winner by the markers."""
    first, second = (float(each.rpartition("=")[2]) for each in (pair.first, pair.second))
    return "first" if first > second else "second"


@contextmanager
def bare_client(endpoint: Endpoint, concurrency: int) -> Iterator[Judge]:
    """The official client as its documentation shows it, in one process."""

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

    client = AsyncOpenAI(base_url=endpoint.base_url, api_key="any", max_retries=0)
    with asyncio.Runner() as runner:
        yield lambda given: runner.run(all_of(given))
        runner.run(client.close())


BARE = "bare openai client"
CONTENDERS: dict[str, Contender] = {BARE: bare_client}


def processor_seconds(without: int) -> float:
    """Processor time of this process and its living descendants but one."""
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
    """Let a contender judge the pairs, and see that the server was asked each question once."""
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
    """Turns of each contender, the first of which, shorter, warms up and is left out.

    Args:
        contenders: By name.
        requests: In each turn.
        concurrency: Requests in flight at once.
        repeats: Turns that count.
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
    """Each figure's median."""
    tables = [asdict(turn) for turn in turns]
    return Turn(**{name: statistics.median(t[name] for t in tables) for name in tables[0]})


def main() -> None:
    """Print a table, and all figures as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--only", choices=CONTENDERS, action="append")
    arguments = parser.parse_args()
    turns = measure(
        {name: CONTENDERS[name] for name in arguments.only or CONTENDERS},
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


if __name__ == "__main__":
    main()
