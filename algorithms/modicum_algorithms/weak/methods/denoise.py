"""Denoise: attention over labeling functions, with self-supervision (end-to-end baseline).

Ren et al. (2020), "Denoising Multi-Source Weak Supervision for Neural Text Classification", in
the form that WRENCH gives it, which the thesis uses.

Shapes: N rows, B mini-batch, D features, K labeling functions, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from modicum_algorithms.weak.config import DenoiseConfig
from modicum_algorithms.weak.data.supervision import Supervision
from modicum_algorithms.weak.models.end_model import mlp
from modicum_algorithms.weak.training import Objective


class Attention(nn.Module):
    """Weights of the labeling functions at a point: Linear, Tanh, Linear, softmax."""

    def __init__(
        self, features: int, functions: int, hidden_units: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        network = mlp(functions + features, functions, [hidden_units], generator)
        self.network = nn.Sequential(
            *(nn.Tanh() if isinstance(layer, nn.ReLU) else layer for layer in network.children())
        )

    def forward(self, features_BD: Tensor, votes_BK: Tensor) -> Tensor:
        """Attention over all functions, abstaining ones included, (B, K); rows sum to 1.

        Votes are floats, -1 is an abstain.
        """
        return self.network(torch.cat([votes_BK, features_BD], 1)).softmax(-1)


class Ensemble:
    """Running means of the end model's outputs at each row (Laine and Aila 2017).

    A mean starts at zero, so a row's t-th mean is divided by 1 − α^t. WRENCH uses the number of
    training steps as t, which hardly corrects rows that are seen rarely and pulls rows not yet seen
    towards zero. Here t is the number of predictions of the row, and an unseen row has no target.

    Attributes:
        alpha: Weight α of the running mean when a new prediction joins it.
        means_NC: Σ over a row's predictions of (1 − α) α^age · prediction.
        seen_N: Number of predictions of each row.
    """

    def __init__(self, rows: int, classes: int, alpha: float) -> None:
        self.alpha = alpha
        self.means_NC = torch.zeros(rows, classes)
        self.seen_N = torch.zeros(rows)

    def loss(self, rows_B: Tensor, logits_BC: Tensor) -> Tensor:
        """Mean squared distance of predictions to the current means; unseen rows count as 0."""
        seen_B1 = self.seen_N[rows_B].unsqueeze(1)
        corrected_BC = self.means_NC[rows_B] / (1 - self.alpha ** seen_B1.clamp(min=1))
        return ((logits_BC - corrected_BC) * (seen_B1 > 0)).square().mean()

    def add(self, rows_B: Tensor, logits_BC: Tensor) -> None:
        """Update the means with new predictions."""
        self.means_NC[rows_B] = torch.lerp(logits_BC.detach(), self.means_NC[rows_B], self.alpha)
        self.seen_N[rows_B] += 1


def vote_weights(weights_BK: Tensor, votes_BK: Tensor, classes: int) -> Tensor:
    """Σ_k w_k 1[ỹ_k = c], shape (B, C); weights of shape (K,) are those of all rows."""
    indicators_BCK = votes_BK[:, None] == torch.arange(classes)[:, None]
    return (indicators_BCK * weights_BK.unsqueeze(-2)).sum(-1)


def reliabilities(attention_BK: Tensor, votes_BK: Tensor) -> Tensor:
    """One weight for each function: softmax of its mean attention, 0 where it abstains.

    Shape (K,), without gradient.
    """
    return (attention_BK.detach() * (votes_BK >= 0)).mean(0).softmax(-1)


def denoise_objective(
    model: nn.Module,
    supervision: Supervision,
    config: DenoiseConfig,
    generator: torch.Generator,
) -> Objective:
    """c1 · attention + c2 · end model + (1 − c1 − c2) · self-supervision.

    Attention and end model both learn hard labels of the rows with a vote, initially those of the
    majority vote. After each step the labels of the mini-batch become the vote weighted by
    `reliabilities`. Self-supervision uses the rows without a vote, or all rows if there are none.
    Strong labels are the votes of one more labeling function. The generator initialises the
    attention and breaks ties of the first majority vote.
    """
    classes, features_ND = supervision.classes, supervision.features_ND
    votes_NK = torch.from_numpy(supervision.with_strong_votes.astype(np.float32))
    voted_N = (votes_NK >= 0).any(1)
    covered = voted_N.nonzero().squeeze(1).numpy()
    uncovered = (~voted_N).nonzero().squeeze(1).numpy()
    attention = Attention(features_ND.shape[1], votes_NK.shape[1], config.hidden_units, generator)
    ensemble = Ensemble(len(supervision), classes, config.denoise_alpha)
    counts_NC = vote_weights(torch.ones(votes_NK.shape[1]), votes_NK, classes)
    targets_N = (counts_NC + torch.rand(counts_NC.shape, generator=generator) / 2).argmax(-1)
    c1, c2 = config.denoise_c1, config.denoise_c2
    steps = 0

    def loss(batches: Sequence[Tensor | None]) -> Tensor:
        nonlocal steps
        voted_B, free_B = batches
        assert voted_B is not None
        assert free_B is not None
        features_BD, votes_BK = features_ND[voted_B], votes_NK[voted_B]
        targets_B = targets_N[voted_B]
        attention_BK = attention(features_BD, votes_BK)
        # The weighted votes themselves serve as logits.
        attention_loss = functional.cross_entropy(
            vote_weights(attention_BK, votes_BK, classes), targets_B
        )
        end_loss = functional.cross_entropy(model(features_BD), targets_B)
        total = c1 * attention_loss + c2 * end_loss
        if steps > config.denoise_ramp_step:
            logits_BC = model(features_ND[free_B])
            total = total + (1 - c1 - c2) * ensemble.loss(free_B, logits_BC)
            ensemble.add(free_B, logits_BC)
        weights_K = reliabilities(attention_BK, votes_BK)
        targets_N[voted_B] = vote_weights(weights_K, votes_BK, classes).argmax(-1)
        steps += 1
        return total

    def denoised() -> np.ndarray:
        with torch.inference_mode():
            attention_NK = attention(features_ND[covered], votes_NK[covered])
            weights_K = reliabilities(attention_NK, votes_NK[covered])
            soft_NC = vote_weights(weights_K, votes_NK, classes)
            soft_NC[~voted_N] = 1
            return (soft_NC / soft_NC.sum(-1, keepdim=True)).numpy()

    parameters = [*model.parameters(), *attention.parameters()]
    groups = [{"params": parameters, "lr": config.learning_rate}]
    pools = [covered, uncovered if len(uncovered) else np.arange(len(supervision))]
    return Objective(pools, loss, groups, denoised=denoised, label_network=attention)


def rebuilt_attention(
    config: DenoiseConfig, weights: Mapping[str, Tensor], inputs: int
) -> Attention:
    """An attention from its saved tensors, for a number of features."""
    functions = weights["network.0.weight"].shape[1] - inputs
    attention = Attention(inputs, functions, config.hidden_units, torch.Generator())
    attention.load_state_dict(weights)
    return attention.eval()
