"""Requests for completions, and sampling in the process of a worker.

B: rows of a batch, T: tokens, V: vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

import modicum as md
from modicum_algorithms.preference.data.prompts import Ids


@dataclass(frozen=True)
class Request:
    """A request for one completion.

    Attributes:
        prompt: Tokens of the prompt, at least one.
        tokens: Maximum length of the completion in tokens.
        seed: Seed that determines the completion, whatever the rest of its batch.
    """

    prompt: Ids
    tokens: int
    seed: int


@dataclass(frozen=True)
class Completion:
    """A sampled completion.

    Attributes:
        ids: Tokens of the completion, with the end-of-text token if it was reached.
        log_probability: log p(y|x) of these tokens, at temperature 1.
    """

    ids: Ids
    log_probability: float


class Sampler(Protocol):
    """A way to sample completions from the current policy; every worker calls it."""

    def sample(
        self, requests: Sequence[Request], temperature: float, version: int | None
    ) -> list[Completion]:
        """One completion for each request, in their order.

        Args:
            requests: Requests, the same on all workers.
            temperature: Sampling temperature.
            version: Number of the policy's current weights, so that weights that were published
                before are not published again; None if they have no number.
        """
        ...


def batches(requests: Sequence[Request], size: int) -> Iterator[list[int]]:
    """Indices of the requests in batches of similar length; the last batch may be smaller.

    The longest come first, so that a batch that does not fit in memory fails at once.
    """
    order = sorted(
        range(len(requests)),
        key=lambda place: (len(requests[place].prompt), requests[place].tokens),
        reverse=True,
    )
    for start in range(0, len(order), size):
        yield order[start : start + size]


@dataclass(frozen=True)
class WorkerSampler:
    """Sampling by the training workers: each samples its share of the requests.

    Attributes:
        language: The policy and its tokenizer.
        engine: Engine that holds the weights, whole or sharded.
        worker: The calling process.
        batch_size: Completions that a worker samples at once.
    """

    language: md.training.LanguageModel
    engine: md.training.Engine
    worker: md.training.Worker
    batch_size: int

    def sample(
        self, requests: Sequence[Request], temperature: float, version: int | None
    ) -> list[Completion]:
        """See `Sampler`."""
        with self.engine.whole():
            found = generate(
                self.language.model,
                self.worker.share(requests),
                temperature=temperature,
                end=self.language.tokenizer.eos_token_id,
                padding=self.language.tokenizer.pad_token_id,
                batch_size=self.batch_size,
            )
        return self.worker.collect(found)


def generate(
    model: Any,
    requests: Sequence[Request],
    *,
    temperature: float,
    end: int | None,
    padding: int,
    batch_size: int,
) -> list[Completion]:
    """Sample completions by temperature from the whole vocabulary.

    The sampled token is the first at which the cumulative probability exceeds a uniform random
    number from the request's seed. A completion therefore depends neither on its batch nor on the
    worker, up to rounding. Requests of similar length are batched together.

    Args:
        model: A causal language model of the transformers library.
        requests: Requests to sample.
        temperature: Divisor of the logits; 0 takes the most probable token.
        end: End-of-text token; None if there is none.
        padding: Padding token.
        batch_size: Requests that are sampled at once.

    Returns:
        One completion for each request, in their order.
    """
    completions: dict[int, Completion] = {}
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for places in batches(requests, batch_size):
            batch = [requests[place] for place in places]
            found = _generate_batch(model, batch, temperature, end, padding)
            completions |= zip(places, found, strict=True)
    model.train(was_training)
    return [completions[place] for place in range(len(requests))]


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
    """Logits processor that samples the token of each row and forces `generate` to take it."""

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
        """Scores (B, V) that are minus infinity for all tokens but the sampled one."""
        step = len(self._tokens)
        log_probabilities_BV = scores.float().log_softmax(-1)
        tokens_B = self._drawn(log_probabilities_BV, self._uniform_BT[:, step])
        self._tokens.append(tokens_B)
        self._log_probabilities.append(log_probabilities_BV.gather(1, tokens_B[:, None])[:, 0])
        shown_B = tokens_B
        if self._end is not None:  # A row at its limit ends, so the batch can.
            shown_B = torch.where(step + 1 >= self.limits_B, self._end, tokens_B)
        return torch.full_like(scores, -torch.inf).scatter(1, shown_B[:, None], 0.0)

    def _drawn(self, log_probabilities_BV: Tensor, uniform_B: Tensor) -> Tensor:
        if self._temperature == 0:
            return log_probabilities_BV.argmax(-1)
        tempered_BV = (log_probabilities_BV / self._temperature).softmax(-1)
        cumulative_BV = tempered_BV.cumsum(-1)
        # Rounding: the cumulative probability may end slightly off 1.
        thresholds_B = uniform_B.to(cumulative_BV.dtype) * cumulative_BV[:, -1]
        tokens_B = torch.searchsorted(cumulative_BV, thresholds_B[:, None], right=True)[:, 0]
        return tokens_B.clamp(max=cumulative_BV.shape[1] - 1)

    def completions(self) -> list[Completion]:
        """The sampled completions, up to the end-of-text token or the limit of each row."""
        tokens_BT = torch.stack(self._tokens, dim=1).cpu().numpy()
        log_probabilities_BT = torch.stack(self._log_probabilities, dim=1).double().cpu().numpy()
        found = []
        for tokens_T, log_probabilities_T, limit in zip(
            tokens_BT, log_probabilities_BT, self.limits_B.tolist(), strict=True
        ):
            ended_T = tokens_T[:limit] == self._end  # all False without an end-of-text token
            length = int(ended_T.argmax()) + 1 if np.any(ended_T) else limit
            total = float(log_probabilities_T[:length].sum())
            found.append(Completion(tuple(tokens_T[:length].tolist()), total))
        return found
