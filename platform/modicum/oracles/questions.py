"""A question as it is asked and remembered: one pair, one order, one wording, one model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from modicum.oracles.protocol import Order, Pair, digest, show


@dataclass(frozen=True)
class Question:
    """What decides an answer, so what an answer is remembered under.

    Attributes:
        prompt: The pair's prompt.
        first: The pair's first completion.
        second: The pair's second completion.
        order: Whether the completions are shown as given or swapped.
        model: The model that is asked, or `human:NAME`.
        temperature: Of its sampling.
        template: Digest of the wording.
        repeat: Number of the opinion: asking twice on purpose asks twice.
    """

    prompt: str
    first: str
    second: str
    order: Order
    model: str
    temperature: float
    template: str
    repeat: int = 0

    @cached_property
    def key(self) -> str:
        """64 hexadecimal digits that differ where any of the above does."""
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
