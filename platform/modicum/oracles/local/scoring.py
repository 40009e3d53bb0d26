"""Judging by scores: each completion is scored alone, and the higher score wins."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modicum.oracles.protocol import Failure, Judgement, Letter, Pair, Reason, show, winner_of


@dataclass(frozen=True)
class Score:
    """Score of a completion."""

    value: float  # The score; higher is better.
    tokens: int = 0  # Tokens that were read to score it; zero for oracles without tokens.


@dataclass(frozen=True)
class NoScore:
    """Lack of a score."""

    reason: Reason  # Reason of the `Failure` that follows.
    message: str  # Description of the problem, to follow "completion A: ".


Text = tuple[str, str]
"""A prompt and a completion of it."""

Scorer = Callable[[Sequence[Text]], Sequence[Score | NoScore]]
"""Scores of texts, in order."""


def joined(texts: Sequence[Text]) -> list[str]:
    """Prompts and completions concatenated."""
    return [prompt + completion for prompt, completion in texts]


def judge_by_score(
    pairs: Sequence[Pair], scorer: Scorer, *, name: str, version: str
) -> list[Judgement | Failure]:
    """Judge pairs by the scores of their completions.

    Every distinct text is scored once, all in one call, so equal completions have equal scores. A
    pair fails if its scores are equal, or if a completion has no score.

    Returns:
        One answer for each pair. A judgement's latency is an equal share of the time taken.
    """
    if not pairs:
        return []
    start = time.perf_counter()
    texts = list(dict.fromkeys((p.prompt, text) for p in pairs for text in (p.first, p.second)))
    scores = dict(zip(texts, scorer(texts), strict=True))
    latency = (time.perf_counter() - start) / len(pairs)

    def answer(pair: Pair) -> Judgement | Failure:
        shown_a, shown_b = show(pair, pair.order)
        a, b = scores[pair.prompt, shown_a], scores[pair.prompt, shown_b]
        failed = _failed("A", a) or _failed("B", b)
        if failed is not None:
            return Failure(
                reason=failed.reason, message=failed.message, oracle=name, version=version
            )
        assert isinstance(a, Score)
        assert isinstance(b, Score)
        if a.value == b.value:
            message = f"both completions scored {a.value:.6g}"
            return Failure(reason="tie", message=message, oracle=name, version=version)
        return Judgement(
            winner=winner_of("A" if a.value > b.value else "B", pair.order),
            rationale=f"A scored {a.value:.6g}, B {b.value:.6g}.",
            oracle=name,
            version=version,
            order_shown=pair.order,
            prompt_tokens=a.tokens + b.tokens,
            latency=latency,
        )

    return [answer(pair) for pair in pairs]


def _failed(letter: Letter, score: Score | NoScore) -> NoScore | None:
    """The reason why a completion cannot be compared; None if it can."""
    if isinstance(score, NoScore):
        return NoScore(score.reason, f"completion {letter}: {score.message}")
    if not math.isfinite(score.value):
        return NoScore("unreadable", f"completion {letter}: its score is {score.value}")
    return None
