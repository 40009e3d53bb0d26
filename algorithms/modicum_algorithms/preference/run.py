"""Active preference learning: algorithm 2 (section 6.3), on one worker or many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

import modicum as md
from modicum_algorithms.preference.acquiring import Acquirer, PromptPool
from modicum_algorithms.preference.checkpoints import keep_outcome
from modicum_algorithms.preference.config import PreferenceConfig
from modicum_algorithms.preference.data.prompts import read_splits
from modicum_algorithms.preference.evaluation import Evaluator
from modicum_algorithms.preference.inspection import ACQUIRED, EVALUATION, TRAINING
from modicum_algorithms.preference.judging import Judge, JudgedPair
from modicum_algorithms.preference.methods.acquisition import choose, get_acquisition
from modicum_algorithms.preference.oracles import open_oracle
from modicum_algorithms.preference.policy import Policy
from modicum_algorithms.preference.training import Learner, training_metrics

Message = dict[str, Any]


@dataclass(frozen=True)
class Arguments:
    """Arguments of the computation, the same for all workers.

    Attributes:
        config: Settings.
        language_model: Name or folder of θ0.
        seed: Seed of the trial.
        trial: Identity of the trial, under which an endpoint's spending is recorded.
    """

    config: PreferenceConfig
    language_model: str
    seed: int
    trial: str


def active_learning(worker: md.training.Worker, arguments: Arguments) -> Iterator[Message]:
    """Algorithm 2, with its lines cited; all workers of a trial run it in step.

    The result of every step is journalled (`Worker.once`), so a trial that starts again repeats no
    step; it trains weights again only if a missing step needs them.

    Yields:
        For each round, and for each evaluated epoch within the last round, `budget` and `metrics`.
        The last message also has `folder`, the name of the trial's outcome in the journal.

    Raises:
        InputError: There are too few prompts, or a prompt does not fit the model's context.
        OracleFailedError: The oracle is unavailable or out of budget.
    """
    config, seed = arguments.config, arguments.seed
    acquisition = get_acquisition(config.acquisition)
    S, M = config.prompts_per_round, config.acquired_per_round
    with _opened_oracle(worker, arguments) as oracle:
        policy = Policy.load(
            config, arguments.language_model, md.derive_seed(seed, "adapters"), worker
        )
        X, held_out = read_splits(config, policy.language, seed)  # 1
        pool = PromptPool(len(X), config.removed_prompts)
        X_P: list[JudgedPair] = []  # 2
        K = config.rounds  # 3
        learner = Learner(policy, X, X_P, config, seed)  # 4: θ ← θ0
        judge = Judge(oracle, worker)
        acquirer, evaluator = Acquirer(learner, judge), Evaluator(learner, judge, held_out)
        finetune = learner.update_online
        if config.fine_tuning == "refit":
            finetune = partial(learner.refit, after_epoch=evaluator.sample_within)
        if config.opponent == "start":
            evaluator.sample_start()  # While the policy has these weights.
        updates: list[dict[str, float]] = []
        for i in range(1, K + 1):  # 5
            draws = acquisition.prompts_to_draw(S, config.entropy_factor, pool.left)
            drawn = X_S = pool.draw(draws, _generator(seed, i, "prompts"))  # 6
            if acquisition.prompts is not None:  # The hybrid approach of section 6.3.1.
                known = acquirer.quantities(i, drawn, acquisition.prompts.needs, [])
                kept = choose(acquisition.prompts, known, S, _generator(seed, i, "kept prompts"))
                X_S = drawn[kept]
            pairs = acquirer.generate(i, X_S) if acquisition.needs_completions else []  # 7
            if "rewards" in acquisition.pairs.needs:
                pairs = acquirer.rewarded(i, pairs)
            known = acquirer.quantities(i, X_S, acquisition.pairs.needs, pairs)  # 8
            best = choose(acquisition.pairs, known, M, _generator(seed, i, "choice"))  # 9
            # Acquisitions that need no completions have line 7 here.
            X_M = [pairs[n] for n in best] if pairs else acquirer.generate(i, X_S[best])
            judged, metrics = acquirer.judged(i, acquirer.rewarded(i, X_M))  # 10
            X_P += judged  # 11
            pool = pool.after(drawn, X_S[best])
            rows = worker.once(f"round-{i:03}/training", partial(finetune, i))  # 12
            updates += [{"round": i, **row} for row in rows]
            for within in evaluator.evaluate_within(i, rows):
                yield _message(learner, within)
            metrics = {"acquired/drawn": len(drawn), **metrics, **training_metrics(rows)}
            if i == K or not config.evaluate_at or i * M in config.evaluate_at:
                metrics |= evaluator.evaluate(f"round-{i:03}/evaluation", i, rows)  # 13
            outcome = _outcome(learner, evaluator, updates) if i == K else None
            yield _message(learner, metrics, outcome)


def _opened_oracle(
    worker: md.training.Worker, arguments: Arguments
) -> AbstractContextManager[md.oracles.Oracle | None]:
    """The oracle, on the first worker."""
    if not worker.first:
        return nullcontext()
    return open_oracle(
        arguments.config, run=arguments.trial, seed=md.derive_seed(arguments.seed, "errors")
    )


def _message(learner: Learner, metrics: Mapping[str, float], folder: str | None = None) -> Message:
    timing = {f"time/{part}": seconds for part, seconds in learner.seconds.items()}
    budget = len(learner.preferences)
    return {"budget": budget, "metrics": {**metrics, **timing}, "folder": folder}


def _outcome(learner: Learner, evaluator: Evaluator, updates: Sequence[Mapping[str, float]]) -> str:
    """Keep the model of the last round and all rows; the name of their folder in the journal."""
    learner.have(learner.config.rounds)
    decode = learner.policy.decode
    acquired = [
        {
            "round": pair.round,
            "prompt": learner.prompts[pair.place].prompt.text,
            "first": decode(pair.first),
            "second": decode(pair.second),
            "winner": pair.winner,
            "rationale": pair.rationale,
            "reward_first": pair.rewards[0],
            "reward_second": pair.rewards[1],
            "order": pair.order,
        }
        for pair in learner.preferences
    ]
    files = {ACQUIRED: acquired, EVALUATION: evaluator.rows, TRAINING: updates}
    return keep_outcome(learner.policy, files)


def _generator(seed: int, i: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng(md.derive_seed(seed, f"round-{i:03} {purpose}"))
