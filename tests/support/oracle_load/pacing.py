"""Evenness of the gate's pacing: arrivals at the endpoint compared with the gate's rate limit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from two_nodes import two_nodes

from fake_endpoint import running_endpoint
from modicum.oracles import Judgement
from oracle_load.driver import Task, drivers
from oracle_load.questions import better, pairs

WINDOW = 10.0


@dataclass(frozen=True)
class Pacing:
    """The endpoint's log of a paced load without faults.

    Attributes:
        pairs: Number of pairs.
        limit: Requests a minute.
        workers: Actors that sent them, on each node.
        per_minute: Requests a minute that arrived, from the first to the last.
        busiest: Most arrivals in any window of `WINDOW` seconds.
        seconds: From the first arrival to the last.
        wrong: Pairs without a judgement, or with the wrong one.
        requests: Arrivals.
    """

    pairs: int
    limit: float
    workers: list[int]
    per_minute: float
    busiest: int
    seconds: float
    wrong: int
    requests: int

    @property
    def share(self) -> float:
        """The rate as a share of the limit."""
        return self.per_minute / self.limit

    @property
    def busiest_share(self) -> float:
        """The busiest window as a share of the limit for its length."""
        return self.busiest / (self.limit * WINDOW / 60)

    def problems(self, *, off: float = 0.05, over: float = 0.02) -> list[str]:
        """Descriptions of all problems.

        Args:
            off: Allowed distance of the rate from the limit, as a share of the limit.
            over: Allowed excess of the busiest window, as a share of its limit.
        """
        found = []
        if abs(self.share - 1) > off:
            found.append(f"the rate is {self.share:.1%} of the limit")
        if self.busiest_share > 1 + over:
            found.append(f"a window of {WINDOW:g} s holds {self.busiest_share:.1%} of its share")
        if self.requests != self.pairs:
            found.append(f"{self.requests} requests for {self.pairs} pairs")
        if self.wrong:
            found.append(f"{self.wrong} pairs are not judged, or wrongly")
        if 0 in self.workers:
            found.append(f"a node has no worker: {self.workers}")
        return found


def pacing(folder: Path, *, count: int, limit: float, workers: int = 8) -> Pacing:
    """Judge pairs through the gate at a limit.

    Args:
        folder: Empty folder for the ledger and the driver's files.
        count: Number of pairs.
        limit: Rate limit, requests a minute.
        workers: Number of actors that send requests.
    """
    with two_nodes() as cluster, running_endpoint(delay=0.05) as endpoint:
        settings = {
            "base_url": endpoint.base_url,
            "limits": {"requests_per_minute": limit},
            "workers": workers,
            "ledger": str(folder / "ledger.sqlite"),
        }
        task = Task(count, seed=1, run="pacing", endpoint=settings)
        with drivers([task], folder, cluster.environment) as (driver,):
            driver.begin()
            answers = driver.answers(patience=60 + 2 * 60 * count / limit)
            senders = [len(node.actors("Worker")) for node in (cluster.head, cluster.worker)]
        log = endpoint.log()
    right = sum(
        isinstance(answer, Judgement) and answer.winner == better(pair)
        for pair, answer in zip(pairs(count, seed=1), answers, strict=True)
    )
    return Pacing(
        pairs=count,
        limit=limit,
        workers=senders,
        per_minute=60 * log.rate,
        busiest=log.busiest(WINDOW),
        seconds=log.arrived[-1] - log.arrived[0],
        wrong=count - right,
        requests=len(log),
    )
