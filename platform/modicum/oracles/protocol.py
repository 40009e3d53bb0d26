"""Pairs, judgements, and the protocol of oracles.

An oracle compares two completions of one prompt. The completions are shown as A and B, in an order
that the pair's seed draws, and the oracle answers with a letter. Only `winner_of` turns letters
into winners, so the order is undone exactly once.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

Winner = Literal["first", "second"]
Letter = Literal["A", "B"]
Order = Literal["given", "swapped"]
Reason = Literal["unreadable", "tie", "too_long", "rejected", "unavailable", "budget"]


@dataclass(frozen=True)
class Pair:
    """Two completions of one prompt.

    Attributes:
        prompt: The prompt; may be empty.
        first: The first completion.
        second: The second completion.
        seed: Seed of the order in which the completions are shown. With None the three texts
            determine the order, so a pair has the same order wherever it occurs.
    """

    prompt: str
    first: str
    second: str
    seed: int | None = None

    @property
    def order(self) -> Order:
        """The order that the pair's seed draws, each with probability 1/2."""
        texts = (self.prompt, self.first, self.second) if self.seed is None else (str(self.seed),)
        return "swapped" if random.Random(digest(*texts)).getrandbits(1) else "given"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """An oracle's answer about one pair.

    Attributes:
        winner: The preferred completion; the order shown is undone.
        rationale: The oracle's reason, or None.
        oracle: Name of the oracle, such as a model's name.
        version: Version of the oracle: everything else on which its answers depend, such as the
            digest of a template or of weights.
        order_shown: Order in which the completions were shown, `given` or `swapped`.
        prompt_tokens: Tokens read, over all requests for this judgement.
        completion_tokens: Tokens written, over all requests for this judgement.
        cost: Cost in dollars; zero if the answer was in the ledger.
        latency: Seconds from sending the request to the answer; zero if the answer was in the
            ledger.
        cached: Whether the answer was in the ledger.
        consistent: Whether the other order has the same winner; None if only one order was asked.
    """

    winner: Winner
    rationale: str | None = None
    oracle: str
    version: str
    order_shown: Order
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    latency: float = 0.0
    cached: bool = False
    consistent: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The absence of a judgement of one pair; no judgement is ever invented.

    Training drops such pairs and counts them; evaluation reports them.

    Attributes:
        reason: Reason of the failure. `unreadable`: neither of two answers holds a verdict, or
            there is nothing to score; `tie`: both completions have the same score; `too_long`:
            longer than the model's context; `rejected`: refused by the endpoint; `unavailable`:
            no answer within the allowed attempts; `budget`: too little is left of a budget.
        message: One sentence for the user.
        oracle: Name of the oracle.
        version: Version of the oracle; see `Judgement`.
        cost: Dollars spent all the same.
    """

    reason: Reason
    message: str
    oracle: str
    version: str
    cost: float = 0.0


@runtime_checkable
class Oracle(Protocol):
    """A judge of pairs: a model behind an endpoint, a classifier, a human.

    Attributes:
        name: Name that is shown in results; with `version`, the oracle's identity.
        version: Version that changes whenever the answer to a question might change.
    """

    @property
    def name(self) -> str:
        """Name that is shown in results."""
        ...

    @property
    def version(self) -> str:
        """Everything else on which the answers depend."""
        ...

    def judge(self, pairs: Sequence[Pair], *, repeat: int = 0) -> list[Judgement | Failure]:
        """Judge pairs; the answers are in the order of the pairs.

        Args:
            pairs: Pairs to judge.
            repeat: Number of the opinion. Another number asks for another opinion; the same
                number returns the same answers.
        """
        ...


def show(pair: Pair, order: Order) -> tuple[str, str]:
    """The completions as A and B, in an order."""
    return (pair.second, pair.first) if order == "swapped" else (pair.first, pair.second)


def winner_of(verdict: Letter, order: Order) -> Winner:
    """The completion that was shown under a letter, in an order."""
    return "first" if (verdict == "A") == (order == "given") else "second"


def other(order: Order) -> Order:
    """The opposite order."""
    return "given" if order == "swapped" else "swapped"


def digest(*texts: str) -> str:
    """Digest of a sequence of texts, 64 hexadecimal digits; ("ab", "c") and ("a", "bc") differ."""
    sha = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        sha.update(len(encoded).to_bytes(8, "big") + encoded)
    return sha.hexdigest()
