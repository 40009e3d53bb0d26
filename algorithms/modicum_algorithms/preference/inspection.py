"""Analysis of the pairs, evaluations and updates of trials (section 6.5.5).

The rows are read from the JSON-lines files in the checkpoint of a trial.

Shapes: P pairs, K bins.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

import modicum as md

ACQUIRED = "acquired.jsonl"
EVALUATION = "evaluation.jsonl"
TRAINING = "training.jsonl"
BINS = 10

Row = Mapping[str, Any]


@dataclass(frozen=True)
class TrialRows:
    """The rows of a trial.

    Attributes:
        settings: Settings of the trial.
        seed: Seed of the trial.
        acquired: A row for each acquired pair: round (from 1), prompt, first, second, winner
            (`"first"` or `"second"`), rationale, reward_first and reward_second (implicit rewards
            before training on the pair).
        evaluations: A row for each evaluated completion: budget, prompt, completion, opponent,
            winner (`"model"`, `"opponent"`, or None without a judgement), rationale. Two keys may
            be missing: order (`"given"` if the oracle saw the model's completion first, else
            `"swapped"`), and epoch (of the evaluation, if not at the end of the round).
        updates: A row for each update: round, update, epoch, loss, accuracy, margin.
    """

    settings: Mapping[str, Any]
    seed: int
    acquired: Sequence[Row] = ()
    evaluations: Sequence[Row] = ()
    updates: Sequence[Row] = ()


def read_trials(results: md.Results, where: Mapping[str, Any]) -> list[TrialRows]:
    """Rows of the finished trials with the settings `where`, read from their last checkpoints."""
    found = []
    for trial in results.trials:
        agrees = all(trial.columns.get(name) == value for name, value in where.items())
        if trial.status != "finished" or not agrees:
            continue
        checkpoint = results.folder.read_json("trials", trial.id, "trial.json")["checkpoint"]
        files = [
            parse_rows(results.folder.read_text(checkpoint, file))
            if checkpoint is not None and results.folder.exists(checkpoint, file)
            else []
            for file in (ACQUIRED, EVALUATION, TRAINING)
        ]
        found.append(TrialRows(trial.columns, trial.seed, *files))
    return found


def parse_rows(text: str) -> list[Row]:
    """Rows of a JSON-lines file."""
    # Not splitlines: it also splits at characters that may stand within a JSON string.
    return [json.loads(line) for line in text.split("\n") if line.strip()]


@dataclass(frozen=True)
class Histogram:
    """Histogram of the probabilities that the implicit model gave to the oracle's preferences.

    Attributes:
        shares_K: Share of all pairs in each of K equal bins from 0 to 1.
        pairs: Number of pairs.
        wrong: Share of pairs with a probability below 1/2: the model preferred the other one.
        undecided: Share of pairs at exactly 1/2, which are in no bin.
    """

    shares_K: np.ndarray
    pairs: int
    wrong: float
    undecided: float


def winner_probabilities(acquired: Iterable[Row], first_round: int = 2) -> np.ndarray:
    """Bradley–Terry probabilities σ(r̂_w − r̂_l) of the oracle's preferences, (P,).

    Equation 6 of Rafailov et al. (2023) with the implicit reward of equation 6.5. Rounds before
    `first_round` are left out, since in round 1 all rewards are 0.
    """
    margins_P = [
        (row["reward_first"] - row["reward_second"]) * {"first": 1, "second": -1}[row["winner"]]
        for row in acquired
        if row["round"] >= first_round
    ]
    return np.asarray(expit(np.array(margins_P, np.float64)))


def histogram(probabilities_P: np.ndarray) -> Histogram:
    """Histogram of probabilities, at least one (figure 6.4)."""
    decided_P = probabilities_P[probabilities_P != 0.5]
    counts_K, _ = np.histogram(decided_P, BINS, (0.0, 1.0))
    pairs = len(probabilities_P)
    return Histogram(
        shares_K=counts_K / pairs,
        pairs=pairs,
        wrong=float((probabilities_P < 0.5).mean()),
        undecided=1 - len(decided_P) / pairs,
    )


@dataclass(frozen=True)
class Convergence:
    """The last round of a trial, epoch by epoch.

    Attributes:
        losses: Mean loss over the updates of each epoch.
        win_rates: Share of judged completions that won, for each evaluated epoch.
    """

    losses: Mapping[int, float]
    win_rates: Mapping[int, float]


def convergence(trial: TrialRows) -> Convergence | None:
    """Loss and win-rate by epoch of a trial's last round (figure D.1); None if it has no updates.

    Evaluations without an epoch belong to the last one.
    """
    if not trial.updates:
        return None
    last = max(row["round"] for row in trial.updates)
    losses: dict[int, list[float]] = {}
    for row in trial.updates:
        if row["round"] == last:
            losses.setdefault(row["epoch"], []).append(row["loss"])
    outcomes: dict[int, list[bool]] = {}
    for row in _at_the_end(trial):
        epoch = row.get("epoch")
        won = row["winner"] == "model"
        outcomes.setdefault(max(losses) if epoch is None else epoch, []).append(won)
    return Convergence(losses=_means(losses), win_rates=_means(outcomes))


def _at_the_end(trial: TrialRows) -> list[Row]:
    """Evaluations with a judgement at the trial's largest budget."""
    budget = max((row["budget"] for row in trial.evaluations), default=None)
    return [r for r in trial.evaluations if r["budget"] == budget and r["winner"] is not None]


def _means(values: Mapping[int, Sequence[float]]) -> dict[int, float]:
    return {key: float(np.mean(values[key])) for key in sorted(values)}


def mean_curve(curves: Iterable[Mapping[int, float]]) -> dict[int, float]:
    """Mean of the curves at each place, over the curves that reach it."""
    values: dict[int, list[float]] = {}
    for curve in curves:
        for place, value in curve.items():
            values.setdefault(place, []).append(value)
    return _means(values)


def last_judged(trials: Iterable[TrialRows], count: int, seed: int = 0) -> list[Row]:
    """Random evaluations with a judgement, from the largest budget of each trial.

    All are returned if there are fewer than `count`.
    """
    judged = [row for trial in trials for row in _at_the_end(trial)]
    order = np.random.default_rng(seed).permutation(len(judged))[:count]
    return [judged[place] for place in order]
