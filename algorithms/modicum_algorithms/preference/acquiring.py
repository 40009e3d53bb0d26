"""Acquisition of judged pairs: lines 7 to 10 of algorithm 2."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

import modicum as md
from modicum_algorithms.preference.judging import Judge
from modicum_algorithms.preference.methods.acquisition import Candidates
from modicum_algorithms.preference.methods.dpo import implicit_rewards
from modicum_algorithms.preference.pairs import JudgedPair, SampledPair, Two
from modicum_algorithms.preference.training import Learner, mixed_seed

_UNTRAINED: Two = (0.0, 0.0)


@dataclass(frozen=True)
class Acquirer:
    """Generation, quantities and judgements of a round's candidates.

    Every result is journalled under the name of the round.

    Attributes:
        learner: The policy; a round uses the weights of the round before.
        judge: The oracle.
    """

    learner: Learner
    judge: Judge

    def generate(self, i: int, places: np.ndarray) -> list[SampledPair]:
        """Line 7: two completions of each prompt, with log p_θ from the same pass.

        Args:
            i: Round, from 1.
            places: Indices of the prompts.
        """

        def sample() -> list[dict[str, Any]]:
            found = self._sampled(
                i, "generation", "completions", places, 2, self.learner.config.sampling_temperature
            )
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

        Args:
            i: Round, from 1.
            pairs: Pairs of the round; those that have rewards are returned as they are.
        """
        if i == 1:
            return [replace(pair, rewards=_UNTRAINED) for pair in pairs]
        missing = [pair for pair in pairs if pair.rewards is None]
        references = iter(self._references(i, missing, f"reference-{len(missing):06}"))
        found = []
        for pair in pairs:
            if pair.rewards is None:
                reference = next(references)
                first, second = implicit_rewards(
                    torch.tensor(pair.log_probabilities, dtype=torch.float64),
                    torch.tensor(reference, dtype=torch.float64),
                    self.learner.config.beta,
                ).tolist()
                pair = replace(pair, reference=reference, rewards=(first, second))
            found.append(pair)
        return found

    def quantities(
        self, i: int, places: np.ndarray, needs: frozenset[str], pairs: Sequence[SampledPair]
    ) -> Candidates:
        """Line 8: the quantities by which an acquisition scores its candidates.

        Args:
            i: Round, from 1.
            places: Indices of the candidates' prompts.
            needs: Quantities that the acquisition needs.
            pairs: Pairs of the candidates, with rewards if these are needed; may be empty if the
                acquisition needs no completions.
        """
        known: dict[str, np.ndarray] = {}
        if "entropy" in needs:
            known["sample_log_probabilities_SN"] = np.array(self._entropy_samples(i, places))
        if "embeddings" in needs:
            known["embeddings_SD"] = np.array(self._embeddings(i, places))
        if "rewards" in needs:
            known["implicit_rewards_S2"] = np.array([pair.rewards for pair in pairs])
        if "costs" in needs:
            # The oracle charges for the tokens that it reads.
            prompts = self.learner.prompts
            known["costs_S"] = np.array(
                [len(prompts[p.place].ids) + len(p.first) + len(p.second) for p in pairs],
                dtype=float,
            )
        return Candidates(size=len(places), **known)

    def judged(
        self, i: int, pairs: Sequence[SampledPair]
    ) -> tuple[list[JudgedPair], dict[str, float]]:
        """Line 10: the pairs with the oracle's judgements, and metrics of the acquisition.

        Args:
            i: Round, from 1.
            pairs: Chosen pairs, with rewards.

        Returns:
            Pairs without a judgement are left out and counted in the metrics.
        """
        with self.learner.clock.measure("oracle"):
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
                    reference=next(references) if pair.reference is None else pair.reference,
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
        if judged and i > 1:
            metrics |= _predictions(judged)
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
    ) -> list[Any]:
        self.learner.have(i - 1)
        return self.learner.sample(
            part,
            f"round-{i:03} {purpose}",
            {int(place): self.learner.prompts[place] for place in places},
            count,
            temperature,
        )

    def _entropy_samples(self, i: int, places: np.ndarray) -> list[list[float]]:
        """Log p_θ of N samples of each prompt (equation 6.8)."""
        config = self.learner.config
        samples = config.entropy_samples

        def sample() -> list[list[float]]:
            found = self._sampled(
                i, "entropy", "entropy", places, samples, config.entropy_temperature
            )
            values = [completion.log_probability for completion in found]
            return [values[s : s + samples] for s in range(0, len(values), samples)]

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
            with self.learner.clock.measure("reference"):
                found = self.learner.policy.reference_log_probabilities(wanted)
            return [found[n : n + 2] for n in range(0, len(found), 2)]

        found = self._once(i, step, compute) if pairs else []
        return [(first, second) for first, second in found]

    def _once(self, i: int, step: str, compute: Callable[[], list[Any]]) -> list[Any]:
        return self.judge.worker.once(f"round-{i:03}/{step}", compute)


def _predictions(judged: Sequence[JudgedPair]) -> dict[str, float]:
    """Accuracy and mean certainty of the implicit preference model before training on pairs."""
    correct = [(pair.rewards[0] > pair.rewards[1]) == (pair.winner == "first") for pair in judged]
    differences = [abs(pair.rewards[0] - pair.rewards[1]) for pair in judged]
    return {
        "acquired/accuracy": float(np.mean(correct)),
        "acquired/certainty": float(np.mean(differences)),
    }
