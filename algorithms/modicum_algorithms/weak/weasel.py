"""WeaSEL: an encoder of the votes and the end model learn to agree (end-to-end baseline).

Rühling Cachay, Boecking and Dubrawski (2021), "End-to-End Weak Supervision", in the form that
WRENCH gives it, which the thesis uses.

Shapes: N rows, B mini-batch, D features, K labeling functions, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import modicum as md
from modicum_algorithms.weak.end_model import Objective, mlp
from modicum_algorithms.weak.losses import soft_cross_entropy
from modicum_algorithms.weak.supervision import Supervision

_CHUNK = 8192  # rows encoded at once outside training


@dataclass(frozen=True)
class WeaselSettings:
    """Settings of WeaSEL.

    Attributes:
        temperature: Divides the encoder's scores: a small one lets few functions decide.
        dropout: Fraction of the encoder's hidden units left out in a step.
        hidden: Sizes of the encoder's hidden layers; WRENCH's has two of 100.
        learning_rate: Adam's, for the end model and the encoder.
        class_balance: p(y = c), all above 0; uniform if not given. WRENCH counts the labels of
            the validation split.
    """

    temperature: float = 1.0
    dropout: float = 0.3
    hidden: Sequence[int] = (100, 100)
    learning_rate: float = 1e-3
    class_balance: Sequence[float] | None = None


class Encoder(nn.Module):
    """Logits of p(y | votes, x), with accuracies of the labeling functions made for each row.

    Batch normalisation and dropout follow each hidden layer, as in WRENCH.
    """

    log_balance_C: Tensor

    def __init__(
        self,
        features: int,
        functions: int,
        classes: int,
        settings: WeaselSettings,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        masks = torch.Generator()
        masks.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        layers: list[nn.Module] = []
        units = 0
        for layer in mlp(
            functions + features, classes * functions, settings.hidden, generator
        ).children():
            if isinstance(layer, nn.Linear):
                units = layer.out_features
                layers.append(layer)
            else:
                layers += [nn.BatchNorm1d(units), layer, _Dropout(settings.dropout, masks)]
        self.network = nn.Sequential(*layers)
        self.temperature = settings.temperature
        balance = settings.class_balance or [1 / classes] * classes
        self.register_buffer("log_balance_C", torch.tensor(balance).log())

    def forward(self, features_BD: Tensor, votes_BK: Tensor) -> Tensor:
        """Logits, shape (B, C); the logarithm of the class balance where no function votes.

        Args:
            features_BD: Features.
            votes_BK: Votes as floats, -1 is an abstain.
        """
        classes = len(self.log_balance_C)
        scores_BCK = self.network(torch.cat([votes_BK, features_BD], 1)).unflatten(1, (classes, -1))
        return weighted_votes(scores_BCK / self.temperature, votes_BK) + self.log_balance_C


def weighted_votes(scores_BCK: Tensor, votes_BK: Tensor) -> Tensor:
    """√K · C · Σ_k softmax_k(scores_c)[k] 1[ỹ_k = c], shape (B, C).

    The softmax runs over all functions, those that abstain included. The paper's factor is √K;
    WRENCH has √K · C.

    Args:
        scores_BCK: Scores of the functions, divided by the temperature.
        votes_BK: Votes, -1 is an abstain.
    """
    _, classes, functions = scores_BCK.shape
    accuracies_BCK = functions**0.5 * classes * scores_BCK.softmax(-1)
    indicators_BCK = votes_BK[:, None] == torch.arange(classes)[:, None]
    return (accuracies_BCK * indicators_BCK).sum(-1)


def agreement_loss(end_logits_BC: Tensor, encoder_logits_BC: Tensor) -> Tensor:
    """H(encoder, end model) + H(end model, encoder), each with the target held fixed.

    Args:
        end_logits_BC: The end model's.
        encoder_logits_BC: The encoder's.
    """
    end_loss = soft_cross_entropy(end_logits_BC, encoder_logits_BC.detach().softmax(-1))
    encoder_loss = soft_cross_entropy(encoder_logits_BC, end_logits_BC.detach().softmax(-1))
    return end_loss + encoder_loss


def weasel_objective(
    model: nn.Module,
    supervision: Supervision,
    settings: WeaselSettings,
    generator: torch.Generator,
) -> Objective:
    """Agreement of end model and encoder on the rows with a vote.

    Strong labels are the votes of one more labeling function.

    Args:
        model: End model, from features to logits.
        supervision: What to learn from.
        settings: How.
        generator: Initialises the encoder and seeds its dropout.

    Raises:
        InputError: No row has a vote or a strong label, or the class balance does not fit.
    """
    classes, features_ND = supervision.classes, supervision.features_ND
    balance = settings.class_balance
    if balance is not None and (len(balance) != classes or min(balance) <= 0):
        raise md.InputError(f"class_balance: must be {classes} numbers above 0")
    votes_NK = torch.from_numpy(supervision.with_strong_votes.astype(np.float32))
    voted_N = (votes_NK >= 0).any(1)
    covered = voted_N.nonzero().squeeze(1).numpy()
    if len(covered) == 0:
        raise md.InputError("method: weasel needs a row with a vote or a strong label")
    encoder = Encoder(features_ND.shape[1], votes_NK.shape[1], classes, settings, generator)
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
    groups: list[dict[str, object]] = [{"params": parameters, "lr": settings.learning_rate}]
    return Objective([covered], loss, groups, denoised=denoised, label_model=encoder)


class _Dropout(nn.Module):
    """Dropout with masks from a generator of its own."""

    def __init__(self, fraction: float, generator: torch.Generator) -> None:
        super().__init__()
        self.fraction, self.generator = fraction, generator

    def forward(self, units_BU: Tensor) -> Tensor:
        if not self.training or self.fraction == 0:
            return units_BU
        drawn_BU = torch.rand(units_BU.shape, generator=self.generator)
        return units_BU * (drawn_BU >= self.fraction) / (1 - self.fraction)
