"""One round of fine-tuning: step 12 of algorithm 2."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modicum_algorithms.preference.config import PreferenceConfig
from modicum_algorithms.preference.dpo import (
    dpo_loss,
    implicit_rewards,
    preference_log_odds,
    rationale_loss,
)
from modicum_algorithms.preference.policy import Policy
from modicum_algorithms.preference.scoring import Example

Row = dict[str, float]


@dataclass(frozen=True)
class JudgedExample:
    """A pair with its judgement, as the loss takes it.

    Attributes:
        example: The preferred completion first; the rationale, if any, as its tail.
        reference: log p_θ0 of both.
    """

    example: Example
    reference: tuple[float, float]


@dataclass(frozen=True)
class _Weighted:
    """A pair's part in an update; a weight of 0 fills up a worker's share."""

    pair: JudgedExample
    weight: float


def epochs(
    policy: Policy,
    pairs: Sequence[JudgedExample],
    config: PreferenceConfig,
    seed: int,
    after_update: Callable[[Row], None],
) -> Iterator[int]:
    """Fine-tune on all pairs, yielding the number of each epoch once it is done, from 1.

    Updates that the policy's engine has done already are passed over, so a policy that was loaded
    in the middle of an epoch goes on there. The last batch of an epoch may be smaller.

    Args:
        policy: As it starts, or as it was saved.
        pairs: X_P.
        config: Settings.
        seed: Of the order.
        after_update: Called after each update with what it did.
    """
    if not pairs:
        return
    generator = np.random.default_rng(seed)
    held_back, trained = _split(len(pairs), config, generator)
    done, update, lowest, waited = policy.engine.updates, 0, np.inf, 0
    for epoch in range(1, config.epochs + 1):
        order = generator.permutation(trained)
        for start in range(0, len(order), config.batch_size):
            if update >= done:
                batch = [pairs[place] for place in order[start : start + config.batch_size]]
                row = update_on(policy, batch, config)
                after_update({"update": update, "epoch": epoch, **row})
            update += 1
        if update <= done:
            continue
        yield epoch
        if config.patience is not None:
            loss = _mean_loss(policy, [pairs[place] for place in held_back], config)
            waited = 0 if loss < lowest else waited + 1
            lowest = min(lowest, loss)
            if waited >= config.patience:
                return


def update_on(policy: Policy, pairs: Sequence[JudgedExample], config: PreferenceConfig) -> Row:
    """One update on some pairs, shared by the workers.

    Returns:
        `loss` and `gradient_norm`; `accuracy`, the share of pairs whose preferred completion had
        the higher implicit reward before the update; `margin`, the mean difference of rewards.
    """
    size = policy.worker.size
    padding = -len(pairs) % size
    weighted = [_Weighted(pair, 1 / len(pairs)) for pair in pairs]
    weighted += [_Weighted(pairs[0], 0.0)] * padding
    # Sorted, so that a micro-batch's rows are of like length and every worker's are alike.
    weighted.sort(key=lambda item: item.pair.example.tokens)
    mine = policy.worker.share(weighted)
    parts = [
        mine[start : start + policy.micro_batch_size]
        for start in range(0, len(mine), policy.micro_batch_size)
    ]
    remaining = iter(parts)
    margins: list[float] = []

    def loss(log_probabilities_B3: Tensor, _batch: object) -> Tensor:
        part = next(remaining)
        weights_B = torch.tensor([item.weight for item in part], device=log_probabilities_B3.device)
        loss_B, z_B = pair_losses(log_probabilities_B3, [item.pair for item in part], config)
        margins.extend(z for z, item in zip(z_B.tolist(), part, strict=True) if item.weight > 0)
        # The engine takes the mean over workers, the weights add up to 1 over all of them.
        return (weights_B * loss_B).sum() * size

    batches = [[item.pair.example for item in part] for part in parts]
    done = policy.engine.update(batches, loss)
    everyone = np.concatenate(policy.worker.gather(margins))
    return {
        "loss": done.loss,
        "gradient_norm": done.gradient_norm,
        "accuracy": float(np.mean(everyone > 0)),
        "margin": float(np.mean(everyone)),
    }


def pair_losses(
    log_probabilities_B3: Tensor, pairs: Sequence[JudgedExample], config: PreferenceConfig
) -> tuple[Tensor, Tensor]:
    """Losses of some pairs, and the log-odds of their judgements, both of shape (B,)."""
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


def _split(
    count: int, config: PreferenceConfig, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Places of the pairs that are held back, if any are, and of those that are trained on."""
    order = generator.permutation(count)
    held = 0 if config.patience is None else max(1, round(config.held_back * count))
    return order[:held], np.sort(order[held:])


def _mean_loss(policy: Policy, pairs: Sequence[JudgedExample], config: PreferenceConfig) -> float:
    scores = policy.score([pair.example for pair in pairs])
    loss_B = dpo_loss(
        torch.tensor(scores, dtype=torch.float64),
        torch.tensor([pair.reference for pair in pairs], dtype=torch.float64),
        beta=config.beta,
        label_smoothing=config.label_smoothing,
    )
    return float(loss_B.mean())
