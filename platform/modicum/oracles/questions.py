"""A question as it is asked and remembered: one pair, one order, one wording, one model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from modicum.oracles.protocol import Order, Pair, digest, show

# Question that is asked of a person.
DEFAULT_WORDING = "Which of the two is better?"


@dataclass(frozen=True)
class Question:
    """Everything that determines an answer, and so the identity under which it is remembered.

    Attributes:
        prompt: The pair's prompt.
        first: The pair's first completion.
        second: The pair's second completion.
        order: Order in which the completions are shown, `given` or `swapped`.
        model: The model that is asked, or `human:NAME`.
        temperature: Sampling temperature.
        template: Digest of the wording.
        repeat: Number of the opinion; another number asks for another opinion.
    """

    prompt: str
    first: str
    second: str
    order: Order
    model: str
    temperature: float
    template: str
    repeat: int = 0

    @classmethod
    def about(
        cls,
        pair: Pair,
        order: Order,
        *,
        model: str,
        template: str,
        repeat: int,
        temperature: float = 0.0,
    ) -> Question:
        """The question about a pair, with its completions shown in an order."""
        texts = (pair.prompt, pair.first, pair.second)
        return cls(*texts, order, model, temperature, template, repeat)

    @cached_property
    def key(self) -> str:
        """64 hexadecimal digits that differ where any field differs."""
        return digest(
            self.prompt,
            self.first,
            self.second,
            self.order,
            self.model,
            repr(float(self.temperature)),
            self.template,
            str(self.repeat),
        )

    @property
    def shown(self) -> tuple[str, str]:
        """The completions as A and B."""
        return show(Pair(self.prompt, self.first, self.second), self.order)
