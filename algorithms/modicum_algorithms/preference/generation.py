"""Sampling completions, each from a seed of its own, with their log-probabilities.

B: rows of a batch, T: tokens, V: vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from modicum_algorithms.preference.scoring import Ids


@dataclass(frozen=True)
class Request:
    """A completion to be sampled.

    Attributes:
        prompt: Tokens of the prompt; at least one.
        tokens: Tokens at most.
        seed: Decides the completion, whatever it is sampled together with.
    """

    prompt: Ids
    tokens: int
    seed: int


@dataclass(frozen=True)
class Completion:
    """A sampled completion.

    Attributes:
        ids: Its tokens, with the one that ends a text if it was reached.
        log_probability: log p(y|x) of these tokens, at temperature 1.
    """

    ids: Ids
    log_probability: float


def generate(
    model: Any,
    requests: Sequence[Request],
    *,
    temperature: float,
    end: int | None,
    padding: int,
    batch_size: int = 64,
) -> list[Completion]:
    """Sample completions by temperature, from the whole vocabulary.

    A token is the first one at which the cumulative probability exceeds a number that the
    request's seed drew uniformly, so a completion depends neither on its batch nor on the worker
    (but for rounding). Requests of like length are sampled together.

    Args:
        model: A causal language model with its `generate`.
        requests: What to sample.
        temperature: Divides the logits; 0 takes the most probable token.
        end: The token that ends a text; None if there is none.
        padding: The token to pad with.
        batch_size: Requests at a time.

    Returns:
        One completion for each request, in their order.
    """
    completions: list[Completion | None] = [None] * len(requests)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for places in batches(requests, batch_size):
            batch = [requests[place] for place in places]
            found = _generate_batch(model, batch, temperature, end, padding)
            for place, completion in zip(places, found, strict=True):
                completions[place] = completion
    model.train(was_training)
    return [completion for completion in completions if completion is not None]


def batches(requests: Sequence[Request], size: int) -> Iterator[list[int]]:
    """Places of requests of like length, the longest first: what does not fit fails at once.

    Args:
        requests: What is to be sampled.
        size: Places in a batch; the last one may have fewer.
    """
    order = sorted(
        range(len(requests)),
        key=lambda place: (len(requests[place].prompt), requests[place].tokens),
        reverse=True,
    )
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _generate_batch(
    model: Any, batch: Sequence[Request], temperature: float, end: int | None, padding: int
) -> list[Completion]:
    device = model.get_input_embeddings().weight.device
    width = max(len(request.prompt) for request in batch)
    ids_BT = torch.full((len(batch), width), padding)
    mask_BT = torch.zeros_like(ids_BT)
    for row, request in enumerate(batch):
        ids_BT[row, width - len(request.prompt) :] = torch.tensor(request.prompt)
        mask_BT[row, width - len(request.prompt) :] = 1
    draw = _Draw(batch, temperature, end, device)
    model.generate(
        ids_BT.to(device),
        attention_mask=mask_BT.to(device),
        generation_config=GenerationConfig(
            max_new_tokens=int(draw.limits_B.max()),
            do_sample=False,
            eos_token_id=end,
            pad_token_id=padding,
        ),
        logits_processor=LogitsProcessorList([draw]),
    )
    return draw.completions()


class _Draw(LogitsProcessor):
    """Draws each row's token, and leaves `generate` no other choice."""

    def __init__(
        self, batch: Sequence[Request], temperature: float, end: int | None, device: torch.device
    ) -> None:
        self.limits_B = torch.tensor([request.tokens for request in batch], device=device)
        longest = int(self.limits_B.max())
        self._uniform_BT = torch.from_numpy(
            np.stack([np.random.default_rng(request.seed).random(longest) for request in batch])
        ).to(device)
        self._temperature = temperature
        self._end = end
        self._tokens: list[Tensor] = []
        self._log_probabilities: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores` (B, V) with all tokens but the drawn one at minus infinity."""
        step = len(self._tokens)
        log_probabilities_BV = scores.float().log_softmax(-1)
        tokens_B = self._drawn(log_probabilities_BV, self._uniform_BT[:, step])
        self._tokens.append(tokens_B)
        self._log_probabilities.append(log_probabilities_BV.gather(1, tokens_B[:, None])[:, 0])
        shown_B = tokens_B
        if self._end is not None:  # A row at its limit ends: the batch does not wait for it.
            shown_B = torch.where(step + 1 >= self.limits_B, self._end, tokens_B)
        return torch.full_like(scores, -torch.inf).scatter(1, shown_B[:, None], 0.0)

    def _drawn(self, log_probabilities_BV: Tensor, uniform_B: Tensor) -> Tensor:
        if self._temperature == 0:
            return log_probabilities_BV.argmax(-1)
        tempered_BV = (log_probabilities_BV / self._temperature).softmax(-1)
        cumulative_BV = tempered_BV.cumsum(-1)
        # Sums of many numbers end near 1, not at it.
        thresholds_B = uniform_B.to(cumulative_BV.dtype) * cumulative_BV[:, -1]
        tokens_B = torch.searchsorted(cumulative_BV, thresholds_B[:, None], right=True)[:, 0]
        return tokens_B.clamp(max=cumulative_BV.shape[1] - 1)

    def completions(self) -> list[Completion]:
        """What was drawn, up to each row's end or limit."""
        tokens_BT = torch.stack(self._tokens, dim=1).cpu().numpy()
        log_probabilities_BT = torch.stack(self._log_probabilities, dim=1).double().cpu().numpy()
        found = []
        for tokens_T, log_probabilities_T, limit in zip(
            tokens_BT, log_probabilities_BT, self.limits_B.tolist(), strict=True
        ):
            ended_T = tokens_T[:limit] == self._end  # nowhere if there is no such token
            length = int(ended_T.argmax()) + 1 if np.any(ended_T) else limit
            total = float(log_probabilities_T[:length].sum())
            found.append(Completion(tuple(tokens_T[:length].tolist()), total))
        return found
