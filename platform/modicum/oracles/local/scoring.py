"""Judging by scores: each completion is scored by itself, and the higher one wins."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modicum.oracles.protocol import Failure, Judgement, Letter, Pair, Reason, show, winner_of


@dataclass(frozen=True)
class Score:
    """How good a completion is.

    Attributes:
        value: Higher is better.
        tokens: Tokens that were read for it; zero where nothing counts tokens.
    """

    value: float
    tokens: int = 0


@dataclass(frozen=True)
class Unscored:
    """Why a completion has no score.

    Attributes:
        reason: As in `Failure`.
        message: What is wrong with it, to stand after "completion A: ".
    """

    reason: Reason
    message: str


Text = tuple[str, str]
"""A prompt and a completion of it."""

Scorer = Callable[[Sequence[Text]], Sequence[Score | Unscored]]
"""Scores of texts, in their order."""


def joined(texts: Sequence[Text]) -> list[str]:
    """Prompt and completion as one text; nothing stands between them."""
    return [prompt + completion for prompt, completion in texts]


def judge_by_score(
    pairs: Sequence[Pair], scorer: Scorer, *, name: str, version: str
) -> list[Judgement | Failure]:
    """Judge pairs by scores of their two completions.

    Every distinct text is scored once, all in one call, so that equal completions have equal
    scores. A pair whose completions score the same, or of which one has no score, is a failure.

    Args:
        pairs: What to judge.
        scorer: Scores texts.
        name: The oracle's.
        version: The oracle's.

    Returns:
        One answer for each pair. A judgement's latency is its share of the time taken.
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


def _failed(letter: Letter, score: Score | Unscored) -> Unscored | None:
    """Why a completion cannot be compared; None if it can."""
    if isinstance(score, Unscored):
        return Unscored(score.reason, f"completion {letter}: {score.message}")
    if not math.isfinite(score.value):
        return Unscored("unreadable", f"completion {letter}: its score is {score.value}")
    return None
