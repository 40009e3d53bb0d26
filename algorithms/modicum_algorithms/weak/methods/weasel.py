"""WeaSEL: an encoder of the votes and the end model learn to agree (end-to-end baseline).

Rühling Cachay, Boecking and Dubrawski (2021), "End-to-End Weak Supervision", in the form that
WRENCH gives it, which the thesis uses.

Shapes: N rows, B mini-batch, D features, K labeling functions, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from modicum_algorithms.weak.config import WeaselConfig, weight_of
from modicum_algorithms.weak.data.supervision import Supervision
from modicum_algorithms.weak.models.end_model import mlp, soft_cross_entropy
from modicum_algorithms.weak.training import Objective

_CHUNK = 8192  # rows encoded at once after training


class Encoder(nn.Module):
    """Logits of p(y | votes, x), from accuracies of the labeling functions predicted for each row.

    Batch normalisation and dropout follow each hidden layer, as in WRENCH. The generator draws the
    initial weights and a seed for the dropout masks.
    """

    log_balance_C: Tensor

    def __init__(
        self,
        features: int,
        functions: int,
        balance_C: np.ndarray,
        config: WeaselConfig,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        masks = torch.Generator()
        masks.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        layers: list[nn.Module] = []
        units = 0
        for layer in mlp(
            functions + features, len(balance_C) * functions, config.hidden, generator
        ).children():
            if isinstance(layer, nn.Linear):
                units = layer.out_features
                layers.append(layer)
            else:
                layers += [nn.BatchNorm1d(units), layer, _Dropout(config.weasel_dropout, masks)]
        self.network = nn.Sequential(*layers)
        self.temperature = weight_of(config, "weasel_temperature")
        log_balance_C = torch.tensor(balance_C, dtype=torch.float32).log()
        self.register_buffer("log_balance_C", log_balance_C)

    def forward(self, features_BD: Tensor, votes_BK: Tensor) -> Tensor:
        """Logits, shape (B, C); where no function votes, the logarithm of the class balance.

        Votes are floats, -1 is an abstain.
        """
        classes = len(self.log_balance_C)
        scores_BCK = self.network(torch.cat([votes_BK, features_BD], 1)).unflatten(1, (classes, -1))
        return weighted_votes(scores_BCK / self.temperature, votes_BK) + self.log_balance_C


def weighted_votes(scores_BCK: Tensor, votes_BK: Tensor) -> Tensor:
    """√K · C · Σ_k softmax_k(scores_c)[k] 1[ỹ_k = c], shape (B, C).

    The softmax is over all functions, abstaining ones included, of their scores divided by the
    temperature. The paper's factor is √K; WRENCH has √K · C.
    """
    _, classes, functions = scores_BCK.shape
    accuracies_BCK = functions**0.5 * classes * scores_BCK.softmax(-1)
    indicators_BCK = votes_BK[:, None] == torch.arange(classes)[:, None]
    return (accuracies_BCK * indicators_BCK).sum(-1)


def agreement_loss(end_logits_BC: Tensor, encoder_logits_BC: Tensor) -> Tensor:
    """H(encoder, end model) + H(end model, encoder), each with the target held fixed."""
    end_loss = soft_cross_entropy(end_logits_BC, encoder_logits_BC.detach().softmax(-1))
    encoder_loss = soft_cross_entropy(encoder_logits_BC, end_logits_BC.detach().softmax(-1))
    return end_loss + encoder_loss


def weasel_objective(
    model: nn.Module,
    supervision: Supervision,
    config: WeaselConfig,
    generator: torch.Generator,
) -> Objective:
    """Agreement of end model and encoder on the rows with a vote.

    Strong labels are the votes of one more labeling function.
    """
    features_ND = supervision.features_ND
    votes_NK = torch.from_numpy(supervision.with_strong_votes.astype(np.float32))
    voted_N = (votes_NK >= 0).any(1)
    covered = voted_N.nonzero().squeeze(1).numpy()
    inputs, functions = features_ND.shape[1], votes_NK.shape[1]
    encoder = Encoder(inputs, functions, supervision.balance, config, generator)
    # A single row has no batch statistics.
    trains = len(covered) > 1
    encoder.train(trains)

    def loss(batches: Sequence[Tensor | None]) -> Tensor:
        (rows_B,) = batches
        assert rows_B is not None
        features_BD = features_ND[rows_B]
        return agreement_loss(model(features_BD), encoder(features_BD, votes_NK[rows_B]))

    def denoised() -> np.ndarray:
        encoder.eval()
        with torch.inference_mode():
            logits = [
                encoder(features_BD, votes_BK)
                for features_BD, votes_BK in zip(
                    features_ND.split(_CHUNK), votes_NK.split(_CHUNK), strict=True
                )
            ]
        encoder.train(trains)
        logits_NC = torch.cat(logits)
        logits_NC[~voted_N] = 0
        return logits_NC.softmax(-1).numpy()

    parameters = [*model.parameters(), *encoder.parameters()]
    groups = [{"params": parameters, "lr": config.learning_rate}]
    return Objective([covered], loss, groups, denoised=denoised, label_network=encoder)


def rebuilt_encoder(config: WeaselConfig, weights: Mapping[str, Tensor], inputs: int) -> Encoder:
    """An encoder from its saved tensors, for a number of features."""
    functions = weights["network.0.weight"].shape[1] - inputs
    balance_C = weights["log_balance_C"].exp().numpy()
    encoder = Encoder(inputs, functions, balance_C, config, torch.Generator())
    encoder.load_state_dict(weights)
    return encoder.eval()


class _Dropout(nn.Module):
    """Dropout whose masks are drawn from a given generator."""

    def __init__(self, fraction: float, generator: torch.Generator) -> None:
        super().__init__()
        self.fraction, self.generator = fraction, generator

    def forward(self, units_BU: Tensor) -> Tensor:
        if not self.training or self.fraction == 0:
            return units_BU
        drawn_BU = torch.rand(units_BU.shape, generator=self.generator)
        return units_BU * (drawn_BU >= self.fraction) / (1 - self.fraction)
