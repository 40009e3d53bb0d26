"""Losses when everything goes wrong at once: faults of the endpoint, and kills.

Two drivers are killed, and a third finishes their work; meanwhile a whole node is killed, and then
the gate's process. The endpoint knows each question's truth and its own charges; the ledger is read
as any program may read it.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from two_nodes import TwoNodes, two_nodes

from fake_endpoint import Endpoint, Log, running_endpoint
from fake_endpoint.behaviour import FAULTS
from modicum.oracles import Failure, Judgement
from modicum.oracles.endpoint.budget import Price
from modicum.oracles.ledger.database import SPENT, open_to_read
from modicum.oracles.protocol import Letter, winner_of
from oracle_load.driver import MODEL, Task, drivers
from oracle_load.questions import better, pairs

PRICE = Price(input=2.5, output=10.0)
CONCURRENCY = 32
# All faults but the lack of credit, which is fatal and tested elsewhere.
SURVIVABLE = [fault for fault in FAULTS if fault != "insufficient_quota"]
# A request with one of these outcomes reached the endpoint and got its answer, or would have.
KILLED = ("answered", "abandoned")
# When something is killed, as a share of the pairs that the endpoint has answered.
FIRST_DRIVER, SECOND_DRIVER, NODE, GATE = 0.2, 0.4, 0.55, 0.75


@dataclass(frozen=True)
class Faults:
    """Accounts of the endpoint, the ledger and the last driver after the faults and kills.

    Attributes:
        pairs: Number of pairs.
        judged: Number of judged pairs.
        failed: Number of failed pairs by reason.
        wrong: Number of pairs whose winner, by driver or ledger, is not the truth.
        not_once: Judged pairs without exactly one answered row in the ledger, and failed pairs
            whose rows do not bear the failure out.
        requests: Requests that the endpoint saw.
        faults: How many of these met each fault.
        kills: Processes and nodes that were killed.
        bound: Repeats that these kills may cause.
        repeated_by_kills: Questions that were asked again although an answer had been sent, or was
            about to be: the answer died with a process.
        repeated_by_faults: Questions that were asked again though charged for, because a fault
            spoilt the answer.
        lost: Rows of the ledger that count as spent in full.
        unfinished: Rows of the ledger that are still reserved.
        dollars_charged: By the endpoint's own account.
        dollars_spent: By the ledger's.
        dollars_allowed: The run's budget.
        saved: Answers that were in the ledger when each of the two reruns began.
        last_cached: Answers that the last driver took from the ledger.
        asked_once_more: Requests of a run after the end, which asked all questions again.
        once_more_cached: Its answers from the ledger.
        capped: The run whose budget did not suffice.
        seconds: From the first request to the last.
    """

    pairs: int
    judged: int
    failed: dict[str, int]
    wrong: int
    not_once: int
    requests: int
    faults: dict[str, int]
    kills: int
    bound: int
    repeated_by_kills: int
    repeated_by_faults: int
    lost: int
    unfinished: int
    dollars_charged: float
    dollars_spent: float
    dollars_allowed: float
    saved: list[int]
    last_cached: int
    asked_once_more: int
    once_more_cached: int
    capped: Capped
    seconds: float

    def problems(self) -> list[str]:
        """Descriptions of all problems."""
        honest = {"unreadable", "unavailable"}
        checks = {
            "pairs are missing": self.judged + sum(self.failed.values()) == self.pairs,
            "pairs failed for no good reason": set(self.failed) <= honest,
            "labels were flipped": self.wrong == 0,
            "pairs were not judged exactly once": self.not_once == 0,
            "faults of a kind never happened": set(self.faults) >= set(SURVIVABLE),
            "kills repeated too many requests": self.repeated_by_kills <= self.bound,
            "rows are still reserved": self.unfinished == 0,
            "the ledger spent less than was charged": self.dollars_charged
            <= self.dollars_spent + 1e-9,
            "the budget was passed": self.dollars_spent <= self.dollars_allowed + 1e-9,
            "the ledger's answers were not used": 0 < self.saved[-1] <= self.last_cached,
            "answers were asked for again": self.asked_once_more == 0,
            "not all was remembered": self.once_more_cached == self.judged,
        }
        return [*(text for text, good in checks.items() if not good), *self.capped.problems()]


@dataclass(frozen=True)
class Capped:
    """A run with faults, a killed driver, and a budget that is too small.

    Attributes:
        pairs: Number of pairs.
        judged: Number of pairs judged before the budget was used up.
        refused: Number of pairs for which too little was left.
        dollars_charged: By the endpoint's own account.
        dollars_spent: By the ledger's.
        dollars_allowed: The budget.
    """

    pairs: int
    judged: int
    refused: int
    dollars_charged: float
    dollars_spent: float
    dollars_allowed: float

    def problems(self) -> list[str]:
        """Descriptions of all problems."""
        checks = {
            "the small budget was passed": self.dollars_spent <= self.dollars_allowed + 1e-9,
            "of the small budget, less was spent than charged": self.dollars_charged
            <= self.dollars_spent + 1e-9,
            "the small budget refused nothing": self.refused > 0,
            "the small budget judged nothing": self.judged > 0,
        }
        return [text for text, good in checks.items() if not good]


def faults(
    folder: Path, *, count: int, limit: float, workers: int = 8, share: float = 0.3
) -> Faults:
    """Judge pairs while everything goes wrong.

    Args:
        folder: Empty folder for the ledger and the drivers' files.
        count: Number of pairs. Fewer than 200 leave too little time between the kills.
        limit: Rate limit, requests a minute.
        workers: Number of actors that send requests.
        share: Share of requests that meet a fault; all kinds are equally frequent.
    """
    ledger = folder / "ledger.sqlite"
    probabilities = {fault: share / len(SURVIVABLE) for fault in SURVIVABLE}
    with (
        two_nodes() as cluster,
        running_endpoint(
            delay=0.1, faults=probabilities, retry_after=0.2, hang_seconds=30
        ) as endpoint,
    ):
        settings: dict[str, Any] = {
            "base_url": endpoint.base_url,
            "limits": {"requests_per_minute": limit, "concurrent_requests": CONCURRENCY},
            "workers": workers,
            "timeout": 5.0,
            "first_wait": 0.1,
            "longest_wait": 2.0,
            "attempts": 20,
            "prices": {MODEL: PRICE.model_dump()},
            "ledger": str(ledger),
        }
        patience = 120 + 4 * 60 * count / limit
        # More than is needed, though what is lost counts in full.
        task = Task(count, seed=1, run="faults", endpoint=settings, dollars=0.01 * count)
        answers, saved = _killed(task, cluster, endpoint, folder, patience)
        log = endpoint.log()
        endpoint.reset()
        with drivers([task], folder / "again", cluster.environment) as (again,):
            again.begin()
            remembered = again.answers(patience)
        asked_once_more = len(endpoint.log())
        endpoint.reset()
        capped = _capped(
            Task(
                max(count // 5, 60),
                seed=2,
                run="capped",
                endpoint=settings,
                dollars=0.0006 * max(count // 5, 60),
            ),
            cluster,
            endpoint,
            folder / "capped",
            patience,
        )
    charged_again = _charged_again(log)
    return Faults(
        pairs=count,
        requests=len(log),
        faults={name: times for name, times in log.outcomes.items() if name in FAULTS},
        kills=4,
        bound=4 * CONCURRENCY,
        repeated_by_kills=sum(charged_again[outcome] for outcome in KILLED),
        repeated_by_faults=sum(n for o, n in charged_again.items() if o not in KILLED),
        dollars_charged=PRICE.of(*log.tokens),
        dollars_allowed=0.01 * count,
        saved=saved,
        asked_once_more=asked_once_more,
        once_more_cached=sum(isinstance(a, Judgement) and a.cached for a in remembered),
        capped=capped,
        seconds=log.arrived[-1] - log.arrived[0],
        **_verdicts(ledger, task, answers),
        **_spending(ledger, task.run),
    )


def _killed(
    task: Task, cluster: TwoNodes, endpoint: Endpoint, folder: Path, patience: float
) -> tuple[list[Judgement | Failure], list[int]]:
    """The last driver's answers, and the number of answers in the ledger when each rerun began."""

    def wait_for(share: float) -> None:
        _wait_for(endpoint, share * task.pairs, patience)

    ledger = Path(task.endpoint["ledger"])
    with drivers([task] * 3, folder, cluster.environment) as (first, second, third):
        first.begin()
        wait_for(FIRST_DRIVER)
        first.kill()
        saved = [_answered(ledger)]
        second.begin()
        wait_for(SECOND_DRIVER)
        second.kill()
        saved.append(_answered(ledger))
        third.begin()
        wait_for(NODE)
        if not cluster.worker.actors("Worker"):
            raise RuntimeError("no worker is on the node that is to be killed")
        cluster.worker.kill()
        wait_for(GATE)
        (gate,) = cluster.head.actors("Gate")
        gate.kill()
        return third.answers(patience), saved


def _wait_for(endpoint: Endpoint, answered: float, patience: float) -> None:
    """Wait until the endpoint has answered a number of questions without a fault."""
    until = time.monotonic() + patience
    while endpoint.counters()["outcomes"].get("answered", 0) < answered:
        if time.monotonic() > until:
            raise RuntimeError(f"the endpoint never answered {answered:.0f} questions")
        time.sleep(0.02)


def _capped(
    task: Task, cluster: TwoNodes, endpoint: Endpoint, folder: Path, patience: float
) -> Capped:
    """Judge with a budget that does not suffice; one driver is killed, another goes on."""
    with drivers([task] * 2, folder, cluster.environment) as (first, second):
        first.begin()
        _wait_for(endpoint, task.pairs / 10, patience)
        first.kill()
        second.begin()
        answers = second.answers(patience)
    assert task.dollars is not None
    return Capped(
        pairs=task.pairs,
        judged=sum(isinstance(answer, Judgement) for answer in answers),
        refused=sum(isinstance(a, Failure) and a.reason == "budget" for a in answers),
        dollars_charged=PRICE.of(*endpoint.log().tokens),
        dollars_spent=_spending(Path(task.endpoint["ledger"]), task.run)["dollars_spent"],
        dollars_allowed=task.dollars,
    )


def _charged_again(log: Log) -> Counter[str]:
    """Number of charged requests, by outcome, whose question was asked once more."""
    last = {question: number for number, question in enumerate(log.question)}
    return Counter(
        log.outcome[number]
        for number, question in enumerate(log.question)
        if last[question] != number and log.prompt_tokens[number] > 0
    )


def _answered(ledger: Path) -> int:
    with closing(open_to_read(ledger)) as connection:
        (count,) = connection.execute(
            "SELECT COUNT(*) FROM requests WHERE state = 'answered'"
        ).fetchone()
    return int(count)


def _verdicts(ledger: Path, task: Task, answers: Sequence[Judgement | Failure]) -> dict[str, Any]:
    """Fields of `Faults` about judgements, from the driver's answers and the ledger's rows."""
    with closing(open_to_read(ledger)) as connection:
        rows = connection.execute("SELECT question, state, verdict FROM requests").fetchall()
    states: dict[str, Counter[str]] = defaultdict(Counter)
    verdicts: dict[str, list[Letter]] = defaultdict(list)
    for question, state, verdict in rows:
        states[question][state] += 1
        if state == "answered":
            verdicts[question].append(verdict)
    given = pairs(task.pairs, task.seed)
    wrong = not_once = 0
    for pair, (question, _), answer in zip(
        given, task.oracle().questions(given), answers, strict=True
    ):
        letters, seen = verdicts[question.key], states[question.key]
        winners = {winner_of(letter, question.order) for letter in letters}
        if isinstance(answer, Judgement):
            winners.add(answer.winner)
            not_once += len(letters) != 1
        elif answer.reason == "unreadable":
            not_once += bool(letters) or seen["unreadable"] != 2
        else:
            not_once += bool(letters) or seen["refused"] + seen["lost"] < task.endpoint["attempts"]
        wrong += bool(winners - {better(pair)})
    return {
        "judged": sum(isinstance(answer, Judgement) for answer in answers),
        "last_cached": sum(isinstance(a, Judgement) and a.cached for a in answers),
        "failed": dict(Counter(a.reason for a in answers if isinstance(a, Failure))),
        "wrong": wrong,
        "not_once": not_once,
    }


def _spending(ledger: Path, run: str) -> dict[str, Any]:
    """Fields of `Faults` about a run's rows."""
    with closing(open_to_read(ledger)) as connection:
        query = f"SELECT {SPENT}, SUM(state = 'lost'), SUM(state = 'reserved') FROM requests"
        found = connection.execute(f"{query} WHERE run = ?", (run,)).fetchone()
    _, _, dollars, lost, unfinished = found
    return {"dollars_spent": dollars, "lost": lost, "unfinished": unfinished}
