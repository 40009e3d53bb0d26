"""Budgets: a request's cost is reserved before it is sent, and settled when its answer is there."""

from __future__ import annotations

from dataclasses import dataclass

from modicum.errors import InputError
from modicum.experiment.config import Config, setting
from modicum.oracles.ledger.records import Amount

# Most tokens that chat templates add around a message, and around a conversation.
_TOKENS_PER_MESSAGE = 16
# Tolerance for the rounding of sums of dollars.
_ROUNDING = 1e-9


class Budget(Config):
    """Caps on spending. A cap that is left out does not limit."""

    calls: int | None = setting(
        None, identity=False, description="Requests that may be charged.", ge=1
    )
    tokens: int | None = setting(
        None, identity=False, description="Tokens that may be read and written.", ge=1
    )
    dollars: float | None = setting(
        None, identity=False, description="Money that may be spent.", unit="dollars", gt=0
    )

    def described(self) -> str:
        """The caps in words."""
        caps = [f"{value:g} {name}" for name, value in self.model_dump(exclude_none=True).items()]
        return ", ".join(caps) or "none"


class Price(Config):
    """Price of a model. Prices change, so none are built in."""

    input: float = setting(
        identity=False, description="Price of a million tokens read.", unit="dollars", ge=0
    )
    output: float = setting(
        identity=False, description="Price of a million tokens written.", unit="dollars", ge=0
    )

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Price of a request in dollars."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6


class Account:
    """A budget with its spending, and with the reservations of requests under way.

    The reservation for a request is the most that the request can cost, so spending cannot exceed
    the budget, however many requests are under way at once.
    """

    def __init__(self, budget: Budget, spent: Amount) -> None:
        self.budget = budget
        self.spent = spent
        self.reserved = Amount()

    def lacks(self, most: Amount) -> str | None:
        """The name of the first cap that a reservation would exceed; None if it fits."""
        total = self.spent + self.reserved + most
        if self.budget.calls is not None and total.calls > self.budget.calls:
            return "calls"
        if self.budget.tokens is not None and total.tokens > self.budget.tokens:
            return "tokens"
        cap = self.budget.dollars
        return "dollars" if cap is not None and total.dollars > cap + _ROUNDING else None

    def reserve(self, most: Amount) -> None:
        """Reserve the most that a request can cost."""
        self.reserved += most

    def settle(self, most: Amount, actual: Amount) -> None:
        """Replace a request's reservation by its actual cost."""
        self.reserved -= most
        self.spent += actual


@dataclass(frozen=True)
class Lack:
    """A budget that has no room for a request."""

    budget: str  # Whose budget, and which cap of it.
    final: bool  # True if no request under way might return a part of its reservation.


class Accounts:
    """The endpoint's account over all runs, and an account for each run."""

    def __init__(self, budget: Budget, spent: Amount) -> None:
        self.total = Account(budget, spent)
        self._runs: dict[str, Account] = {}

    def __contains__(self, run: object) -> bool:
        return run in self._runs

    def open(self, run: str, spent: Amount) -> None:
        """Open the account of a run, with its spending so far and no budget."""
        self._runs[run] = Account(Budget(), spent)

    def set_budget(self, run: str, budget: Budget, *, fixed: bool) -> None:
        """Set the budget of a run.

        Raises:
            InputError: The run's budget is `fixed`, and is another one.
        """
        account = self._runs[run]
        if fixed and account.budget != budget:
            raise InputError(
                f"budget: another program of run {run!r} has {account.budget.described()}, "
                f"this one {budget.described()}; give both the same budget, or name another run"
            )
        account.budget = budget

    def lack(self, run: str, most: Amount) -> Lack | None:
        """The first budget that has no room for a request; None if all have."""
        for account, whose in ((self._runs[run], "run"), (self.total, "endpoint")):
            cap = account.lacks(most)
            if cap is not None:
                return Lack(f"{whose}'s budget of {cap}", final=account.reserved.calls == 0)
        return None

    def reserve(self, run: str, most: Amount) -> None:
        """Reserve the most that a request of a run can cost."""
        for account in (self._runs[run], self.total):
            account.reserve(most)

    def settle(self, run: str, most: Amount, actual: Amount) -> None:
        """Replace the reservation of a run's request by its actual cost."""
        for account in (self._runs[run], self.total):
            account.settle(most, actual)


def most_prompt_tokens(*messages: str) -> int:
    """Upper bound of a prompt's tokens for any tokenizer: a token is at least a byte of UTF-8."""
    return _TOKENS_PER_MESSAGE + sum(
        _TOKENS_PER_MESSAGE + len(message.encode("utf-8", "surrogatepass")) for message in messages
    )


def likely_tokens(text: str) -> int:
    """Estimated number of tokens: in English text a token is about four characters."""
    return -(-len(text) // 4)
