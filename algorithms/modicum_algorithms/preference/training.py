"""Fine-tuning of the policy on judged pairs: line 12 of algorithm 2.

B: pairs of a batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

import modicum as md
from modicum_algorithms.preference.checkpoints import Row, load_round, save_round
from modicum_algorithms.preference.config import PreferenceConfig
from modicum_algorithms.preference.data.prompts import Ids, TokenizedPrompt
from modicum_algorithms.preference.judging import JudgedPair, Two
from modicum_algorithms.preference.methods.dpo import (
    dpo_loss,
    implicit_rewards,
    preference_log_odds,
    rationale_loss,
)
from modicum_algorithms.preference.policy import Policy
from modicum_algorithms.preference.sampling.in_process import Completion, Request
from modicum_algorithms.preference.scoring import Example

# In the middle of a round, the policy has the weights of no round.
_BETWEEN = -1


@dataclass(frozen=True)
class TrainingExample:
    """A judged pair in the form that the loss takes.

    Attributes:
        example: The preferred completion first; the rationale, if any, as its tail.
        reference: log p_θ0 of the preferred completion and of the other one.
    """

    example: Example
    reference: Two


@dataclass
class Learner:
    """The policy, and the round whose weights it has.

    Weights of a round are computed when they are needed: a trial that starts again reads the
    results of finished steps from the journal and trains only what a missing step needs.

    Attributes:
        policy: p_θ.
        prompts: X, the training prompts.
        preferences: X_P, the judged pairs so far.
        config: Settings.
        seed: Seed of the trial.
        seconds: Seconds that this process spent on each part of the work.
        trained: Round whose weights the policy has; 0 for θ0.
    """

    policy: Policy
    prompts: Sequence[TokenizedPrompt]
    preferences: Sequence[JudgedPair]
    config: PreferenceConfig
    seed: int
    seconds: dict[str, float] = field(default_factory=dict)
    trained: int = 0

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time of a block to a part of the work."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - started

    def refit(
        self, i: int, after_epoch: Callable[[int, int], object] = lambda i, epoch: None
    ) -> list[Row]:
        """Fine-tune from θ0 on all pairs up to round i, or resume from a checkpoint of round i.

        Updates that a loaded checkpoint has made are skipped, so that training resumes in the
        middle of an epoch. The last batch of an epoch may be smaller. After each epoch,
        `after_epoch` is called with the numbers of the round and of the epoch, from 1.

        Returns:
            A row for each update: `update` from 0, `epoch` from 1, and the results of `update_on`.
        """
        config, policy, every = self.config, self.policy, self.config.training.save_every
        with self.measure("training"):
            pairs = self._examples([pair for pair in self.preferences if pair.round <= i])
            self.trained = _BETWEEN
            rows = load_round(policy, i, done=False)
            if rows is None:
                policy.engine.reset()
                rows = []
            generator = np.random.default_rng(self.seed_for(f"round-{i:03} epochs"))
            held_back, kept = _split(len(pairs), config, generator)
            done, update, lowest, waited = policy.engine.updates, 0, np.inf, 0
            for epoch in range(1, config.epochs + 1):
                order = generator.permutation(kept)
                for start in range(0, len(order), config.batch_size):
                    if update >= done:
                        batch = [pairs[place] for place in order[start : start + config.batch_size]]
                        found = update_on(policy, batch, config)
                        rows.append({"update": update, "epoch": epoch, **found})
                        if every and policy.engine.updates % every == 0:
                            save_round(policy, i, rows, done=False)
                    update += 1
                if update <= done:
                    continue
                after_epoch(i, epoch)
                if config.patience is not None:  # Early stopping.
                    loss = _mean_loss(policy, [pairs[place] for place in held_back], config)
                    waited = 0 if loss < lowest else waited + 1
                    lowest = min(lowest, loss)
                    if waited >= config.patience:
                        break
        return self._trained(i, rows)

    def update_online(self, i: int) -> list[Row]:
        """Make one update on the pairs of round i, from the weights of the round before (D.4).

        Returns:
            The row of the update, as in `refit`; none if the round has no judged pair.
        """
        with self.measure("training"):
            self.have(i - 1)
            pairs = self._examples([pair for pair in self.preferences if pair.round == i])
            rows: list[Row] = []
            if pairs:
                self.trained = _BETWEEN
                found = update_on(self.policy, pairs, self.config)
                rows.append({"update": self.policy.engine.updates - 1, "epoch": 1, **found})
        return self._trained(i, rows)

    def have(self, i: int) -> None:
        """Give the policy the weights of round i: loaded, or trained again; 0 for θ0."""
        if self.trained == i:
            return
        if i == 0:
            self.policy.engine.reset()
        elif load_round(self.policy, i, done=True) is None:
            if self.config.fine_tuning == "online":
                self.update_online(i)
            else:
                self.refit(i)
        self.trained = i

    def sample(
        self,
        part: str,
        purpose: str,
        prompts: Mapping[int, TokenizedPrompt],
        count: int,
        temperature: float,
    ) -> list[Completion]:
        """Completions of prompts by the policy's current weights; those of a prompt are adjacent.

        Args:
            part: Part of the work that the time is counted for.
            purpose: Purpose of the seed.
            prompts: Prompts by a number that enters the seed of their completions.
            count: Completions of each prompt.
            temperature: Sampling temperature.
        """
        seed = self.seed_for(purpose)
        with self.measure(part):
            return self.policy.sampler.sample(
                [
                    Request(prompt.ids, prompt.tokens, mixed_seed(seed, number, k))
                    for number, prompt in prompts.items()
                    for k in range(count)
                ],
                temperature,
                version=None if self.trained == _BETWEEN else self.trained,
            )

    def seed_for(self, purpose: str) -> int:
        """A seed for one purpose, derived from the trial's."""
        return md.derive_seed(self.seed, purpose)

    def _trained(self, i: int, rows: list[Row]) -> list[Row]:
        self.trained = i
        if self.config.training.save_every or self.config.fine_tuning == "online":
            save_round(self.policy, i, rows, done=True)
        return rows

    def _examples(self, pairs: Sequence[JudgedPair]) -> list[TrainingExample]:
        found = []
        for pair in pairs:
            won, lost, reference = pair.first, pair.second, pair.reference
            if pair.winner == "second":
                won, lost, reference = lost, won, reference[::-1]
            tail: Ids = ()
            if self.config.rationale_weight and pair.rationale:
                tail = self.policy.encode_continuation(f"\n{pair.rationale}")
            example = Example(self.prompts[pair.place].ids, won, lost, tail)
            found.append(TrainingExample(example, reference))
        return found


def update_on(policy: Policy, pairs: Sequence[TrainingExample], config: PreferenceConfig) -> Row:
    """Make one update on a batch of pairs, the same on all workers, which share them.

    Returns:
        `loss` and `gradient_norm`; `accuracy`, the share of pairs whose preferred completion had
        the higher implicit reward before the update; `margin`, the mean difference of the rewards.
    """
    size = policy.worker.size
    # Pairs of weight 0 fill up a worker's share.
    weighted = [(pair, 1 / len(pairs)) for pair in pairs]
    weighted += [(pairs[0], 0.0)] * (-len(pairs) % size)
    # Sorted, so that rows of a micro-batch, and those of different workers, have similar lengths.
    weighted.sort(key=lambda item: item[0].example.tokens)
    mine = policy.worker.share(weighted)
    parts = [
        mine[start : start + policy.micro_batch_size]
        for start in range(0, len(mine), policy.micro_batch_size)
    ]
    remaining = iter(parts)
    margins: list[float] = []

    def loss(log_probabilities_B3: Tensor, _batch: object) -> Tensor:
        part, weights = zip(*next(remaining), strict=True)
        weights_B = torch.tensor(weights, device=log_probabilities_B3.device)
        loss_B, z_B = pair_losses(log_probabilities_B3, part, config)
        margins.extend(z for z, weight in zip(z_B.tolist(), weights, strict=True) if weight > 0)
        # The engine averages over workers, and the weights of all workers sum to 1.
        return (weights_B * loss_B).sum() * size

    batches = [[pair.example for pair, _ in part] for part in parts]
    done = policy.engine.update(batches, loss)
    everyone = np.concatenate(policy.worker.gather(margins))
    return {
        "loss": done.loss,
        "gradient_norm": done.gradient_norm,
        "accuracy": float(np.mean(everyone > 0)),
        "margin": float(np.mean(everyone)),
    }


def pair_losses(
    log_probabilities_B3: Tensor, pairs: Sequence[TrainingExample], config: PreferenceConfig
) -> tuple[Tensor, Tensor]:
    """Losses of pairs, given the scores of `CompletionScorer`, and log-odds of their judgements.

    Both have shape (B,).
    """
    device = log_probabilities_B3.device
    reference_B2 = torch.tensor([pair.reference for pair in pairs], device=device)
    policy_B2 = log_probabilities_B3[:, :2]
    loss_B = dpo_loss(
        policy_B2, reference_B2, beta=config.beta, label_smoothing=config.label_smoothing
    )
    if config.rationale_weight:
        tokens_B = torch.tensor([len(pair.example.tail) for pair in pairs], device=device)
        loss_B = loss_B + config.rationale_weight * rationale_loss(
            log_probabilities_B3[:, 2], tokens_B
        )
    z_B = preference_log_odds(implicit_rewards(policy_B2.detach(), reference_B2, config.beta))
    return loss_B, z_B


def mixed_seed(seed: int, place: int, number: int) -> int:
    """A seed for one completion of one prompt, derived from the seed of the purpose."""
    return int(np.random.SeedSequence([seed, place, number]).generate_state(1, np.uint64)[0])


def training_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Means over the updates of the last epoch, and their number, from rows of `Learner.refit`."""
    if not rows:  # No pair of any round has a judgement.
        return {"training/epoch": 0, "training/updates": 0}
    last = [row for row in rows if row["epoch"] == rows[-1]["epoch"]]
    means = {
        f"training/{name}": float(np.mean([row[name] for row in last]))
        for name in ("loss", "accuracy", "margin")
    }
    return {**means, "training/epoch": last[0]["epoch"], "training/updates": len(rows)}


def _split(
    count: int, config: PreferenceConfig, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the pairs that early stopping holds back, and of those to train on."""
    order = generator.permutation(count)
    held = 0 if config.patience is None else max(1, round(config.held_back * count))
    return order[:held], np.sort(order[held:])


def _mean_loss(policy: Policy, pairs: Sequence[TrainingExample], config: PreferenceConfig) -> float:
    scores = policy.score([pair.example for pair in pairs])
    loss_B = dpo_loss(
        torch.tensor(scores, dtype=torch.float64),
        torch.tensor([pair.reference for pair in pairs], dtype=torch.float64),
        beta=config.beta,
        label_smoothing=config.label_smoothing,
    )
    return float(loss_B.mean())
