"""What an oracle is asked and what it answers.

An oracle compares two completions of one prompt. It is shown them as A and B, in an order that
the pair's own seed decides, and answers with a letter. From letter to winner there is one way,
`winner_of`, so that an order is undone exactly once.
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
        prompt: What was completed; may be empty.
        first: One completion.
        second: The other.
        seed: Decides the order in which an oracle is shown them. None derives it from the three
            texts, so that a pair has the same order wherever it stands.
    """

    prompt: str
    first: str
    second: str
    seed: int | None = None

    @property
    def order(self) -> Order:
        """The order that the pair's seed draws: each of the two with probability 1/2."""
        texts = (self.prompt, self.first, self.second) if self.seed is None else (str(self.seed),)
        return "swapped" if random.Random(digest(*texts)).getrandbits(1) else "given"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """An oracle's answer about one pair.

    Attributes:
        winner: The completion that it prefers, with the order shown already undone.
        rationale: Its reason; None if it gives none.
        oracle: The oracle's name, such as a model's.
        version: What else its answers depend on: a template's digest, a classifier's, weights.
        order_shown: Whether it saw the pair's completions as given or swapped.
        prompt_tokens: Tokens that it read, over all requests for this judgement.
        completion_tokens: Tokens that it wrote.
        cost: Dollars. Zero where the answer was in the ledger.
        latency: Seconds from sending the request to the answer; zero where it was in the ledger.
        cached: Whether the answer was in the ledger.
        consistent: Whether the other order has the same winner; None where it was not asked.
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
    """There is no judgement of one pair, and none was made up.

    Training drops such pairs and counts them; evaluation reports them.

    Attributes:
        reason: `unreadable`: asked twice, no verdict in either answer, or nothing to score;
            `tie`: both completions scored the same; `too_long`: longer than the model's context;
            `rejected`: the endpoint refused this request; `unavailable`: no answer within the
            attempts allowed; `budget`: there was not enough left.
        message: One sentence for the user.
        oracle: The oracle's name.
        version: As in `Judgement`.
        cost: Dollars spent on it all the same.
    """

    reason: Reason
    message: str
    oracle: str
    version: str
    cost: float = 0.0


@runtime_checkable
class Oracle(Protocol):
    """Anything that judges pairs: a model behind an endpoint, a classifier, a human.

    Attributes:
        name: Shown in results; with `version`, the oracle's identity.
        version: Changes whenever the same question might be answered otherwise.
    """

    @property
    def name(self) -> str:
        """Shown in results."""
        ...

    @property
    def version(self) -> str:
        """What else the answers depend on."""
        ...

    def judge(self, pairs: Sequence[Pair], *, repeat: int = 0) -> list[Judgement | Failure]:
        """One answer for each pair, in the pairs' order.

        Args:
            pairs: What to judge.
            repeat: Asking on purpose for another opinion: answers are kept apart by this number,
                and the same number returns the same answer.
        """
        ...


def show(pair: Pair, order: Order) -> tuple[str, str]:
    """The completions to be shown as A and B."""
    return (pair.second, pair.first) if order == "swapped" else (pair.first, pair.second)


def winner_of(verdict: Letter, order: Order) -> Winner:
    """The completion that a letter stands for, given the order in which they were shown."""
    return "first" if (verdict == "A") == (order == "given") else "second"


def other(order: Order) -> Order:
    """The order that was not drawn."""
    return "given" if order == "swapped" else "swapped"


def digest(*texts: str) -> str:
    """64 hexadecimal digits of a sequence of texts; ("ab", "c") and ("a", "bc") differ."""
    sha = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        sha.update(len(encoded).to_bytes(8, "big") + encoded)
    return sha.hexdigest()
