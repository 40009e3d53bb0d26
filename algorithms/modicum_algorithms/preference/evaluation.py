"""Win-rates on held-out prompts: step 13 of algorithm 2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import modicum as md
from modicum_algorithms.preference.judging import Answer, Judge

# Points of the model's completion for an answer about (the model's, the opponent's).
_POINTS = {"first": 1.0, "second": 0.0}
_WINNERS: dict[float | None, str] = {1.0: "model", 0.0: "opponent"}


@dataclass(frozen=True)
class Match:
    """The model's completion of a prompt against another one.

    Attributes:
        prompt: Text.
        completion: The model's.
        opponent: θ0's or a human's.
    """

    prompt: str
    completion: str
    opponent: str


def win_rate(matches: Sequence[Match], judge: Judge, step: str, seed: int) -> dict[str, Any]:
    """Judge every match in both orders.

    Args:
        matches: One for each held-out prompt.
        judge: Asks the oracle.
        step: Name for the journal.
        seed: Decides which order is asked first.

    Returns:
        `win_rate`: mean points over prompts, a win being 1, a tie (equal scores, equal texts, or
        other winners in the two orders) 1/2; prompts without an answer in either order are left
        out. `standard_error` over prompts. Neither is there where no prompt has an answer.
        `ties`, `failures` as shares of all prompts; `judgements`: how many were asked for; `rows`:
        one for each prompt, with the rationale of the first of both answers and the order that it
        was shown.
    """
    different = [place for place, m in enumerate(matches) if m.completion != m.opponent]
    asked = [matches[place] for place in different]
    # The same seed shows both pairs in the same order: the model's completion once as A, once as B.
    given = [
        md.oracles.Pair(m.prompt, m.completion, m.opponent, seed + i) for i, m in enumerate(asked)
    ]
    swapped = [
        md.oracles.Pair(m.prompt, m.opponent, m.completion, seed + i) for i, m in enumerate(asked)
    ]
    answers = judge.ask(given + swapped, step)
    points: dict[int, float | None] = dict.fromkeys(range(len(matches)), 0.5)
    reasons: dict[int, Answer] = {}
    for place, one, two in zip(
        different, answers[: len(asked)], answers[len(asked) :], strict=True
    ):
        points[place] = _points(one, two)
        reasons[place] = one
    counted = [value for value in points.values() if value is not None]
    return {
        **_mean(counted),
        "ties": sum(value == 0.5 for value in counted) / len(matches),
        "failures": 1 - len(counted) / len(matches),
        "judgements": len(answers),
        "rows": [
            {
                "prompt": match.prompt,
                "completion": match.completion,
                "opponent": match.opponent,
                "points": points[place],
                "winner": _WINNERS.get(points[place]),
                "rationale": reasons[place]["rationale"] if place in reasons else None,
                "order": reasons[place]["order"] if place in reasons else None,
            }
            for place, match in enumerate(matches)
        ],
    }


def _mean(counted: Sequence[float]) -> dict[str, float]:
    if not counted:
        return {}
    mean = sum(counted) / len(counted)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in counted))
    return {"win_rate": mean, "standard_error": deviation / len(counted)}


def _points(given: Answer, swapped: Answer) -> float | None:
    """The model's points from both answers; None if neither says anything."""
    found = []
    for answer, sign in ((given, 1), (swapped, -1)):
        if answer["winner"] is not None:
            found.append(0.5 + sign * (_POINTS[answer["winner"]] - 0.5))
        elif answer["reason"] == "tie":
            found.append(0.5)
    return sum(found) / len(found) if found else None
