"""An oracle with artificial errors, for simulations."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from modicum.errors import InputError
from modicum.oracles.protocol import Failure, Judgement, Oracle, Pair, Winner, digest


@dataclass(frozen=True)
class NoisyOracle:
    """Oracle that flips another oracle's judgements with given probabilities.

    The noise depends on the seed, the pair's texts and the repeat alone: a question has the same
    noise whatever is asked beside it, and another repeat has new noise. Failures are not changed.

    Attributes:
        oracle: Oracle whose judgements count as the truth.
        error_first: Probability of a flip if the first completion wins.
        error_second: Probability of a flip if the second completion wins.
        seed: Seed of the noise.

    Raises:
        InputError: A probability is not within [0, 1].
    """

    oracle: Oracle
    error_first: float
    error_second: float
    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("error_first", "error_second"):
            value = getattr(self, field)
            if not 0 <= value <= 1:
                raise InputError(f"{field}: must be a probability from 0 to 1, got {value!r}")

    @property
    def name(self) -> str:
        """The other oracle's name, with the errors."""
        return f"{self.oracle.name} with errors {self.error_first:g} and {self.error_second:g}"

    @property
    def version(self) -> str:
        """Digest of the other oracle's identity, the errors and the seed."""
        errors = (float(self.error_first).hex(), float(self.error_second).hex())
        return digest(self.oracle.name, self.oracle.version, *errors, str(self.seed))[:16]

    def judge(self, pairs: Sequence[Pair], *, repeat: int = 0) -> list[Judgement | Failure]:
        """Judge pairs, in order; see `Oracle`."""
        answers = self.oracle.judge(pairs, repeat=repeat)
        return [
            answer if isinstance(answer, Failure) else self._with_noise(pair, answer, repeat)
            for pair, answer in zip(pairs, answers, strict=True)
        ]

    def _with_noise(self, pair: Pair, truth: Judgement, repeat: int) -> Judgement:
        error = self.error_first if truth.winner == "first" else self.error_second
        question = (str(self.seed), pair.prompt, pair.first, pair.second, str(repeat))
        judgement = replace(truth, oracle=self.name, version=self.version)
        if random.Random(digest(*question)).random() >= error:
            return judgement
        # The rationale supports the other completion.
        flipped: Winner = "second" if truth.winner == "first" else "first"
        return replace(judgement, winner=flipped, rationale=None)
