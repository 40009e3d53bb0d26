"""Requests for completions, their completions, and the interface of samplers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from modicum_algorithms.preference.data.tokenized import Ids


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
    """Indices of the requests in batches of similar length.

    The longest come first, so that a batch that does not fit in memory fails at once.

    Args:
        requests: Requests to batch.
        size: Size of a batch; the last one may be smaller.
    """
    order = sorted(
        range(len(requests)),
        key=lambda place: (len(requests[place].prompt), requests[place].tokens),
        reverse=True,
    )
    for start in range(0, len(order), size):
        yield order[start : start + size]
