"""What has been asked and answered while a human labels: the logic behind page and terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from modicum.oracles.labelling.store import AnswerStore
from modicum.oracles.protocol import (
    Failure,
    Judgement,
    Letter,
    Order,
    Pair,
    digest,
    other,
    winner_of,
)
from modicum.oracles.questions import Question
from modicum.oracles.verdicts import Verdict

DEFAULT_WORDING = "Which of the two is better?"


@dataclass(frozen=True)
class Asking:
    """What a human is asked about every pair.

    Attributes:
        name: The human's name; answers are kept apart by it.
        wording: The question that stands above every pair; another wording asks anew.
        both_orders: Ask about each pair once more with A and B exchanged, after all the others.
        repeat: Number of the opinion: asking twice on purpose asks twice.
    """

    name: str
    wording: str = DEFAULT_WORDING
    both_orders: bool = False
    repeat: int = 0

    @property
    def model(self) -> str:
        """The human's name among those of models."""
        return f"human:{self.name}"

    @property
    def version(self) -> str:
        """Identifies the wording."""
        return digest(self.wording)[:16]

    def question(self, pair: Pair, order: Order) -> Question:
        """The question about a pair that is shown in an order."""
        return Question(
            prompt=pair.prompt,
            first=pair.first,
            second=pair.second,
            order=order,
            model=self.model,
            temperature=0.0,
            template=self.version,
            repeat=self.repeat,
        )


@dataclass(frozen=True)
class Progress:
    """How many questions are answered, of how many."""

    answered: int
    total: int

    @property
    def finished(self) -> bool:
        """Whether nothing is left to ask."""
        return self.answered == self.total


@dataclass(frozen=True)
class Undone:
    """A step that was taken back: an answer, or (without a verdict) that a pair was skipped."""

    question: Question
    verdict: Verdict | None


class Session:
    """Pairs, and what a human says about them.

    Every answer is in the store before anything here changes, and what the store already holds
    is not asked again. Pairs that ask the same question are asked about once. Use it from one
    thread.

    Args:
        pairs: What to judge, in this order.
        store: Where answers are kept.
        asking: What is asked.
        clock: Seconds that only go forward.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        store: AnswerStore,
        asking: Asking,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pairs = list(pairs)
        self.asking = asking
        self._store = store
        self._clock = clock
        self._questions = {question.key: question for question in self._asked()}
        self._verdicts = store.answered(self._questions)
        self._queue = [key for key in self._questions if key not in self._verdicts]
        self._steps: list[Undone] = []
        self._shown_at: dict[str, float] = {}
        self._latencies: dict[str, float] = {}

    def _asked(self) -> Iterator[Question]:
        for pair in self.pairs:
            yield self.asking.question(pair, pair.order)
        if self.asking.both_orders:
            for pair in self.pairs:
                yield self.asking.question(pair, other(pair.order))

    @property
    def progress(self) -> Progress:
        """How far it has come, with what was answered before this session."""
        return Progress(len(self._verdicts), len(self._questions))

    @property
    def last(self) -> Question | None:
        """The question whose answer or skipping `undo` would take back."""
        return self._steps[-1].question if self._steps else None

    def show(self) -> Question | None:
        """The question to be asked now, None if all are answered; its time runs from here."""
        if not self._queue:
            return None
        key = self._queue[0]
        self._shown_at.setdefault(key, self._clock())
        return self._questions[key]

    def judge(self, key: str, letter: Letter, rationale: str | None = None) -> bool:
        """Keep an answer, given as the letter that was shown.

        Returns:
            False if the question was answered before; then nothing changes.

        Raises:
            KeyError: No question has this key.
        """
        question = self._questions[key]
        if key in self._verdicts:
            return False
        now = self._clock()
        latency = now - self._shown_at.get(key, now)
        verdict = Verdict(letter, _clean(rationale))
        self._store.record(question, verdict.letter, verdict.rationale, latency)
        self._verdicts[key] = verdict
        self._latencies[key] = latency
        self._queue.remove(key)
        self._steps.append(Undone(question, verdict))
        return True

    def skip(self, key: str) -> bool:
        """Ask this question after all the others.

        Returns:
            False if it is answered; then nothing changes.

        Raises:
            KeyError: No question has this key.
        """
        question = self._questions[key]
        if key in self._verdicts:
            return False
        self._queue.remove(key)
        self._queue.append(key)
        self._shown_at.pop(key, None)
        self._steps.append(Undone(question, None))
        return True

    def undo(self) -> Undone | None:
        """Take this session's last step back and show its pair next; None if there is none."""
        if not self._steps:
            return None
        step = self._steps[-1]
        key = step.question.key
        if step.verdict is None:
            self._queue.remove(key)
        else:
            self._store.withdraw(key)
            del self._verdicts[key], self._latencies[key]
        self._steps.pop()
        self._queue.insert(0, key)
        self._shown_at.pop(key, None)
        return step

    def judgements(self) -> list[Judgement | Failure]:
        """What is known of each pair, in the pairs' order.

        The winner is that of the pair's own order. Those answered before this session are
        `cached` and have no latency, as with any ledger.
        """
        return [self._judgement(pair) for pair in self.pairs]

    def _judgement(self, pair: Pair) -> Judgement | Failure:
        order = pair.order
        key = self.asking.question(pair, order).key
        if key not in self._verdicts:
            return Failure(
                reason="unavailable",
                message=f"{self.asking.name} has not answered",
                oracle=self.asking.model,
                version=self.asking.version,
            )
        winner = winner_of(self._verdicts[key].letter, order)
        consistent = None
        if self.asking.both_orders:
            reverse = other(order)
            again = self._verdicts.get(self.asking.question(pair, reverse).key)
            if again is not None:
                consistent = winner_of(again.letter, reverse) == winner
        return Judgement(
            winner=winner,
            rationale=self._verdicts[key].rationale,
            oracle=self.asking.model,
            version=self.asking.version,
            order_shown=order,
            latency=self._latencies.get(key, 0.0),
            cached=key not in self._latencies,
            consistent=consistent,
        )


def _clean(rationale: str | None) -> str | None:
    """None where nothing is said; halves of characters, which no file can keep, are replaced."""
    text = (rationale or "").encode("utf-8", "replace").decode("utf-8").strip()
    return text or None
