"""A labelling session: its questions and answers, for both the page and the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from modicum.oracles.ledger.ledger import Ledger
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
from modicum.oracles.questions import DEFAULT_WORDING, Question, Verdict


@dataclass(frozen=True)
class Asking:
    """The question to a human about every pair."""

    name: str  # Name of the human; each name has its own answers.
    # The question above every pair; each wording has its own answers.
    wording: str = DEFAULT_WORDING
    # Ask about each pair once more, after all pairs, with A and B exchanged.
    both_orders: bool = False
    repeat: int = 0  # Number of the opinion; another number asks for another opinion.

    @property
    def model(self) -> str:
        """The human's name as that of a model, `human:NAME`."""
        return f"human:{self.name}"

    @property
    def version(self) -> str:
        """Digest of the wording."""
        return digest(self.wording)[:16]

    def question(self, pair: Pair, order: Order) -> Question:
        """The question about a pair, shown in an order."""
        return Question.about(
            pair, order, model=self.model, template=self.version, repeat=self.repeat
        )


@dataclass(frozen=True)
class Progress:
    """Number of answered questions, and of all questions."""

    answered: int
    total: int

    @property
    def finished(self) -> bool:
        """True if all questions are answered."""
        return self.answered == self.total


@dataclass(frozen=True)
class Undone:
    """A step that was taken back: an answer or, without a verdict, the skipping of a pair."""

    question: Question
    verdict: Verdict | None


class Session:
    """A human's judgements of pairs.

    Every answer is in the ledger before the session changes, and the questions that the ledger
    answers are not asked again. Equal questions are asked once. Use a session from one thread.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        ledger: Ledger,
        asking: Asking,
        clock: Callable[[], float] = time.monotonic,  # Seconds.
    ) -> None:
        self.pairs = list(pairs)
        self.asking = asking
        self._ledger = ledger
        self._clock = clock
        self._questions = {question.key: question for question in self._asked()}
        self._verdicts = {
            key: Verdict(found.verdict, found.rationale)
            for key, found in ledger.recall(self._questions).items()
            if found.verdict is not None
        }
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
        """Progress so far; it counts answers of earlier sessions, too."""
        return Progress(len(self._verdicts), len(self._questions))

    @property
    def last(self) -> Question | None:
        """The question of the step that `undo` would take back; None if there is no step."""
        return self._steps[-1].question if self._steps else None

    def show(self) -> Question | None:
        """The question to ask now, None if all are answered; its latency is measured from here."""
        if not self._queue:
            return None
        key = self._queue[0]
        self._shown_at.setdefault(key, self._clock())
        return self._questions[key]

    def judge(self, key: str, letter: Letter, rationale: str | None = None) -> bool:
        """Record an answer, given as the letter under which a completion was shown.

        Returns:
            False, and nothing changes, if the question was answered before.

        Raises:
            KeyError: No question has this key.
        """
        question = self._questions[key]
        if key in self._verdicts:
            return False
        now = self._clock()
        latency = now - self._shown_at.get(key, now)
        verdict = Verdict(letter, _clean(rationale))
        self._ledger.record(question, verdict, latency)
        self._verdicts[key] = verdict
        self._latencies[key] = latency
        self._queue.remove(key)
        self._steps.append(Undone(question, verdict))
        return True

    def skip(self, key: str) -> bool:
        """Move a question behind all the others.

        Returns:
            False, and nothing changes, if the question is answered.

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
        """Take this session's last step back, so its pair is next; None if there is no step."""
        if not self._steps:
            return None
        step = self._steps[-1]
        key = step.question.key
        if step.verdict is None:
            self._queue.remove(key)
        else:
            self._ledger.withdraw(key)
            del self._verdicts[key], self._latencies[key]
        self._steps.pop()
        self._queue.insert(0, key)
        self._shown_at.pop(key, None)
        return step

    def judgements(self) -> list[Judgement | Failure]:
        """A judgement of each pair, in order; a failure if the pair's question is open.

        The winner is that of the order which the pair's seed drew. Judgements of earlier sessions
        are `cached` and have no latency.
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
    """The text without surrounding space, None if empty; lone surrogates are replaced."""
    text = (rationale or "").encode("utf-8", "replace").decode("utf-8").strip()
    return text or None
