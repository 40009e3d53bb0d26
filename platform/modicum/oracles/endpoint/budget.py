"""What may be spent: reserved before a request goes out, settled when its answer is there."""

from __future__ import annotations

from dataclasses import dataclass

from modicum.experiment.config import Config, setting

# Tokens that chat templates add around a message, and around a conversation, at most.
_PER_MESSAGE = 16
# Sums of dollars are floats: a difference below this is none.
_CENT_OF_A_CENT = 1e-9


class Budget(Config):
    """Caps on what is spent. One that is left out is not capped."""

    calls: int | None = setting(
        None, identity=False, description="Requests that may be charged for.", ge=1
    )
    tokens: int | None = setting(None, identity=False, description="Tokens read and written.", ge=1)
    dollars: float | None = setting(
        None, identity=False, description="Money.", unit="dollars", gt=0
    )


class Price(Config):
    """What a model's endpoint charges. Prices change, so none are built in."""

    input: float = setting(
        identity=False, description="Per million tokens read.", unit="dollars", ge=0
    )
    output: float = setting(
        identity=False, description="Per million tokens written.", unit="dollars", ge=0
    )

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Dollars for so many tokens."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


@dataclass(frozen=True)
class Amount:
    """Something spent or reserved: requests, tokens, dollars."""

    calls: int = 0
    tokens: int = 0
    dollars: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.calls + other.calls, self.tokens + other.tokens, self.dollars + other.dollars
        )

    def __sub__(self, other: Amount) -> Amount:
        return Amount(
            self.calls - other.calls, self.tokens - other.tokens, self.dollars - other.dollars
        )


class Account:
    """A budget, what was spent of it, and what requests under way have reserved.

    What is reserved is the most that a request can cost, so spending cannot pass the budget
    however many requests are under way at once.
    """

    def __init__(self, budget: Budget, spent: Amount) -> None:
        self.budget = budget
        self.spent = spent
        self.reserved = Amount()

    def lacks(self, most: Amount) -> str | None:
        """The name of the first cap that would be passed by reserving so much, or None."""
        total = self.spent + self.reserved + most
        if self.budget.calls is not None and total.calls > self.budget.calls:
            return "calls"
        if self.budget.tokens is not None and total.tokens > self.budget.tokens:
            return "tokens"
        cap = self.budget.dollars
        return "dollars" if cap is not None and total.dollars > cap + _CENT_OF_A_CENT else None

    def reserve(self, most: Amount) -> None:
        """Set the most that a request can cost aside."""
        self.reserved += most

    def settle(self, most: Amount, actual: Amount) -> None:
        """A request has come back: what it cost in the place of what was set aside for it."""
        self.reserved -= most
        self.spent += actual


def most_prompt_tokens(*messages: str) -> int:
    """A bound that no tokeniser passes: a token is at least one byte of UTF-8 text."""
    return _PER_MESSAGE + sum(
        _PER_MESSAGE + len(message.encode("utf-8", "surrogatepass")) for message in messages
    )


def likely_tokens(text: str) -> int:
    """An estimate: in English text a token is about four characters."""
    return -(-len(text) // 4)
