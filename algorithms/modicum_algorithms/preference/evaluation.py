"""Win-rates on held-out prompts: line 13 of algorithm 2."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import modicum as md
from modicum_algorithms.preference.checkpoints import Row
from modicum_algorithms.preference.data.prompts import Ids, TokenizedPrompt
from modicum_algorithms.preference.judging import Answer, Judge
from modicum_algorithms.preference.training import Learner, training_metrics

# Points of the model for an answer about the pair (model's completion, opponent's).
_POINTS = {"first": 1.0, "second": 0.0}
_WINNERS: dict[float | None, str] = {1.0: "model", 0.0: "opponent"}
# The journal's step with θ0's completions of the held-out prompts.
_START = "start"


@dataclass(frozen=True)
class Match:
    """Texts of a prompt, of the model's completion, and of θ0's or a human's completion."""

    prompt: str
    completion: str
    opponent: str


@dataclass
class Evaluator:
    """Evaluation of the policy against θ0 or humans, judged by the oracle.

    Attributes:
        learner: The policy.
        judge: The oracle.
        prompts: Held-out prompts.
        rows: A row for each evaluated completion so far, as in `evaluation.jsonl`.
        judgements: Number of judgements asked for so far.
    """

    learner: Learner
    judge: Judge
    prompts: Sequence[TokenizedPrompt]
    rows: list[dict[str, Any]] = field(default_factory=list)
    judgements: int = 0

    def sample_start(self) -> list[Ids]:
        """θ0's completions of the held-out prompts."""
        return self._sample(_START, 0)

    def sample_within(self, i: int, epoch: int) -> None:
        """Sample completions after an epoch of round i, if that epoch is to be evaluated."""
        if epoch in self.learner.config.epochs_evaluated(i):
            self._sample(_epoch_step(i, epoch), None)

    def evaluate_within(self, i: int, rows: Sequence[Row]) -> Iterator[dict[str, float]]:
        """Metrics after each epoch of round i that is to be evaluated (figure D.1)."""
        for epoch in self.learner.config.epochs_evaluated(i):
            done = [row for row in rows if row["epoch"] <= epoch]
            # An epoch that early stopping left out has no rows.
            if any(row["epoch"] == epoch for row in done):
                found = self.evaluate(_epoch_step(i, epoch), None, done)
                yield {**training_metrics(done), **found}

    def _sample(self, step: str, trained: int | None) -> list[Ids]:
        """The completions of the held-out prompts by round `trained`, None for current weights.

        The name of the step in the journal is the purpose of the seed.
        """
        config = self.learner.config

        def compute() -> list[list[int]]:
            if trained is not None:
                self.learner.have(trained)
            prompts, temperature = dict(enumerate(self.prompts)), config.evaluation_temperature
            found = self.learner.sample("evaluation", step, prompts, 1, temperature)
            return [list(completion.ids) for completion in found]

        return [tuple(ids) for ids in self.judge.worker.once(f"{step}-completions", compute)]

    def evaluate(self, step: str, trained: int | None, rows: Sequence[Row]) -> dict[str, float]:
        """Metrics of an evaluation.

        Args:
            step: Name of the step in the journal.
            trained: Round whose weights to use; None if the completions are in the journal.
            rows: Rows of the round's updates before the evaluation.
        """
        mine = self._sample(step, trained)
        decode = self.learner.policy.decode
        if self.learner.config.opponent == "human":
            opponents = [prompt.prompt.human or "" for prompt in self.prompts]
        else:
            opponents = [decode(ids) for ids in self.sample_start()]
        matches = [
            Match(prompt.prompt.text, decode(ids), opponent)
            for prompt, ids, opponent in zip(self.prompts, mine, opponents, strict=True)
        ]
        with self.learner.measure("oracle"):
            found = win_rate(matches, self.judge, step, self.learner.seed_for("evaluation order"))
        if "win_rate" not in found:
            self.judge.worker.log.warning(
                "%s: the oracle judged none of %d held-out prompts, so there is no win-rate",
                step,
                len(matches),
            )
        budget, epoch = len(self.learner.preferences), int(rows[-1]["epoch"]) if rows else 0
        self.rows += [{"budget": budget, "epoch": epoch, **row} for row in found.pop("rows")]
        self.judgements += found.pop("judgements")
        return {
            **{f"evaluation/{name}": value for name, value in found.items()},
            "evaluation/tokens": float(np.mean([len(ids) for ids in mine])),
            "evaluation/judgements": self.judgements,
        }


def win_rate(matches: Sequence[Match], judge: Judge, step: str, seed: int) -> dict[str, Any]:
    """Judge every match in both orders and compute the win-rate.

    Args:
        matches: One match for each held-out prompt.
        judge: The oracle.
        step: Name of the step in the journal.
        seed: Seed of the order that is asked first.

    Returns:
        `win_rate`: mean points over prompts. A win has 1 point, a tie (equal scores, equal texts,
        or different winners in the two orders) 1/2; prompts without an answer in either order are
        left out. `standard_error` over prompts. Both are absent if no prompt has an answer.
        `ties`, `failures`: shares of all prompts. `judgements`: number asked for. `rows`: one for
        each prompt, with rationale and order of the first of its two answers.
    """
    different = [place for place, m in enumerate(matches) if m.completion != m.opponent]
    asked = [matches[place] for place in different]
    # Both pairs have the same seed, so the model's completion is shown once as A and once as B.
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


def _epoch_step(i: int, epoch: int) -> str:
    return f"round-{i:03}/epoch-{epoch:04}"


def _mean(counted: Sequence[float]) -> dict[str, float]:
    if not counted:
        return {}
    mean = sum(counted) / len(counted)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in counted))
    return {"win_rate": mean, "standard_error": deviation / len(counted)}


def _points(given: Answer, swapped: Answer) -> float | None:
    """The model's mean points over both answers; None if neither is a judgement or a tie."""
    found = []
    for answer, sign in ((given, 1), (swapped, -1)):
        if answer["winner"] is not None:
            found.append(0.5 + sign * (_POINTS[answer["winner"]] - 0.5))
        elif answer["reason"] == "tie":
            found.append(0.5)
    return sum(found) / len(found) if found else None
