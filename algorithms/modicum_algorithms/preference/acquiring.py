"""Acquisition of judged pairs: lines 6 to 10 of algorithm 2."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

import modicum as md
from modicum_algorithms.preference.judging import Judge, JudgedPair, SampledPair, Two
from modicum_algorithms.preference.methods.acquisition import Candidates
from modicum_algorithms.preference.methods.dpo import implicit_rewards
from modicum_algorithms.preference.sampling.in_process import Completion
from modicum_algorithms.preference.training import Learner, mixed_seed

_UNTRAINED: Two = (0.0, 0.0)


@dataclass(frozen=True)
class PromptPool:
    """Prompts that have not been used, by their index; sampling is without replacement.

    Attributes:
        size: Number of prompts at the start.
        removes: Prompts that a round uses up: those it acquired, or all that it drew.
        gone: Prompts that were used up.
    """

    size: int
    removes: Literal["acquired", "drawn"]
    gone: frozenset[int] = frozenset()

    @property
    def left(self) -> int:
        """Number of prompts in the pool."""
        return self.size - len(self.gone)

    def draw(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Distinct prompts at random, all if there are fewer; the pool stays as it is."""
        left = np.array([place for place in range(self.size) if place not in self.gone], np.int64)
        return generator.permutation(left)[:count]

    def after(self, drawn: Iterable[int], acquired: Iterable[int]) -> PromptPool:
        """The pool after a round.

        Args:
            drawn: Prompts that the round drew.
            acquired: Drawn prompts whose pairs were judged.

        Raises:
            ValueError: A prompt was not in the pool, or was acquired without being drawn.
        """
        drawn, acquired = frozenset(map(int, drawn)), frozenset(map(int, acquired))
        if not (drawn.isdisjoint(self.gone) and drawn <= frozenset(range(self.size))):
            raise ValueError("drawn: all prompts must be in the pool")
        if not acquired <= drawn:
            raise ValueError("acquired: all prompts must have been drawn")
        return replace(self, gone=self.gone | (acquired if self.removes == "acquired" else drawn))


@dataclass(frozen=True)
class Acquirer:
    """Generation, quantities and judgements of the candidates of a round i, from 1.

    Every result is journalled under the name of the round.

    Attributes:
        learner: The policy; a round uses the weights of the round before.
        judge: The oracle.
    """

    learner: Learner
    judge: Judge

    def generate(self, i: int, places: np.ndarray) -> list[SampledPair]:
        """Line 7: two completions of each prompt, with log p_θ from the same pass."""
        temperature = self.learner.config.sampling_temperature

        def sample() -> list[dict[str, Any]]:
            found = self._sampled(i, "generation", "completions", places, 2, temperature)
            return [
                SampledPair(
                    int(place),
                    first.ids,
                    second.ids,
                    (first.log_probability, second.log_probability),
                ).as_json()
                for place, first, second in zip(places, found[::2], found[1::2], strict=True)
            ]

        return [SampledPair.from_json(row) for row in self._once(i, "pairs", sample)]

    def rewarded(self, i: int, pairs: Sequence[SampledPair]) -> list[SampledPair]:
        """The pairs with the implicit rewards of both completions (equation 6.5).

        In the first round θ = θ0, and all rewards are exactly 0, without rounding errors.
        """
        if i == 1:
            return [replace(pair, rewards=_UNTRAINED) for pair in pairs]
        if all(pair.rewards is not None for pair in pairs):
            return list(pairs)
        references = self._references(i, pairs, f"reference-{len(pairs):06}")
        rewards_S2 = implicit_rewards(
            torch.tensor([pair.log_probabilities for pair in pairs], dtype=torch.float64),
            torch.tensor(references, dtype=torch.float64),
            self.learner.config.beta,
        )
        return [
            replace(pair, reference=reference, rewards=(first, second))
            for pair, reference, (first, second) in zip(
                pairs, references, rewards_S2.tolist(), strict=True
            )
        ]

    def quantities(
        self, i: int, places: np.ndarray, needs: frozenset[str], pairs: Sequence[SampledPair]
    ) -> Candidates:
        """Line 8: the quantities by which an acquisition scores its candidates.

        Args:
            i: Round.
            places: Indices of the candidates' prompts.
            needs: Quantities that the acquisition needs.
            pairs: Pairs of the candidates, with rewards if these are needed; may be empty if the
                acquisition needs no completions.
        """
        prompts = self.learner.prompts
        known: dict[str, np.ndarray] = {}
        if "entropy" in needs:
            known["sample_log_probabilities_SN"] = np.array(self._entropy_samples(i, places))
        if "embeddings" in needs:
            known["embeddings_SD"] = np.array(self._embeddings(i, places))
        if "rewards" in needs:
            known["implicit_rewards_S2"] = np.array([pair.rewards for pair in pairs])
        if "costs" in needs:  # The oracle charges for the tokens that it reads.
            tokens = [len(prompts[p.place].ids) + len(p.first) + len(p.second) for p in pairs]
            known["costs_S"] = np.array(tokens, dtype=float)
        return Candidates(size=len(places), **known)

    def judged(
        self, i: int, pairs: Sequence[SampledPair]
    ) -> tuple[list[JudgedPair], dict[str, float]]:
        """Line 10: the pairs with the oracle's judgements, and metrics of the acquisition.

        Pairs without a judgement are left out and counted in the metrics.
        """
        with self.learner.measure("oracle"):
            answers = self.judge.ask(self._questions(i, pairs), f"round-{i:03}/judgements")
        answered = [
            (pair, answer)
            for pair, answer in zip(pairs, answers, strict=True)
            if answer["winner"] is not None
        ]
        unknown = [pair for pair, _ in answered if pair.reference is None]  # In the first round.
        references = iter(self._references(i, unknown, "reference-acquired"))
        judged = []
        for pair, answer in answered:
            assert pair.rewards is not None
            judged.append(
                JudgedPair(
                    round=i,
                    place=pair.place,
                    first=pair.first,
                    second=pair.second,
                    reference=pair.reference or next(references),
                    rewards=pair.rewards,
                    winner=answer["winner"],
                    rationale=answer["rationale"],
                    order=answer["order"],
                )
            )
        lengths = [len(pair.first) + len(pair.second) for pair in pairs]
        metrics = {
            "acquired/failures": 1 - len(judged) / len(pairs),
            "acquired/tokens": float(np.mean(lengths) / 2),
            "acquired/cost": sum(answer["cost"] for answer in answers),
        }
        if judged and i > 1:  # Of the implicit preference model before training on the pairs.
            ahead = [pair.rewards[0] - pair.rewards[1] for pair in judged]
            correct = [
                (pair.rewards[0] > pair.rewards[1]) == (pair.winner == "first") for pair in judged
            ]
            metrics["acquired/accuracy"] = float(np.mean(correct))
            metrics["acquired/certainty"] = float(np.mean(np.abs(ahead)))
        return judged, metrics

    def _questions(self, i: int, pairs: Sequence[SampledPair]) -> list[md.oracles.Pair]:
        seed = self.learner.seed_for(f"round-{i:03} order")
        decode = self.learner.policy.decode
        return [
            md.oracles.Pair(
                self.learner.prompts[pair.place].prompt.text,
                decode(pair.first),
                decode(pair.second),
                seed=mixed_seed(seed, pair.place, 0),
            )
            for pair in pairs
        ]

    def _sampled(
        self, i: int, part: str, purpose: str, places: np.ndarray, count: int, temperature: float
    ) -> list[Completion]:
        self.learner.have(i - 1)
        prompts = {int(place): self.learner.prompts[place] for place in places}
        return self.learner.sample(part, f"round-{i:03} {purpose}", prompts, count, temperature)

    def _entropy_samples(self, i: int, places: np.ndarray) -> list[list[float]]:
        """Log p_θ of N samples of each prompt (equation 6.8)."""
        config = self.learner.config
        N, temperature = config.entropy_samples, config.entropy_temperature

        def sample() -> list[list[float]]:
            found = self._sampled(i, "entropy", "entropy", places, N, temperature)
            values = [completion.log_probability for completion in found]
            return [values[start : start + N] for start in range(0, len(values), N)]

        return self._once(i, "entropy", sample)

    def _embeddings(self, i: int, places: np.ndarray) -> list[list[float]]:
        def compute() -> list[list[float]]:
            self.learner.have(i - 1)
            prompts = [self.learner.prompts[place].ids for place in places]
            return self.learner.policy.embeddings(prompts)

        return self._once(i, "embeddings", compute)

    def _references(self, i: int, pairs: Sequence[SampledPair], step: str) -> list[Two]:
        """Log p_θ0 of both completions of each pair."""

        def compute() -> list[list[float]]:
            wanted = [
                (self.learner.prompts[pair.place].ids, completion)
                for pair in pairs
                for completion in (pair.first, pair.second)
            ]
            with self.learner.measure("reference"):
                found = self.learner.policy.reference_log_probabilities(wanted)
            return [found[n : n + 2] for n in range(0, len(found), 2)]

        found = self._once(i, step, compute) if pairs else []
        return [(first, second) for first, second in found]

    def _once(self, i: int, step: str, compute: Callable[[], list[Any]]) -> list[Any]:
        return self.judge.worker.once(f"round-{i:03}/{step}", compute)
