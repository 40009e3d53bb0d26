"""Seeds of an algorithm's episodes and iterations, from counters that its checkpoints hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.rllib.utils.checkpoints import Checkpointable

import modicum as md
from modicum_algorithms.solipsistic.episodic.runner import EpisodeRequest


class EpisodeCounter(Checkpointable):
    """Seed of an algorithm, and the number of episodes and iterations it has collected.

    RLlib's checkpoints leave out the random states of environments, of the replay buffer and of
    torch. Here every seed derives from the counter, so that a restored algorithm goes on exactly as
    one that was never stopped.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.episodes = 0
        self.iterations = 0

    def next_requests(self, exploration_rates: Sequence[float | None]) -> list[EpisodeRequest]:
        """Count the next iteration's training episodes, and return their requests."""
        first = self.episodes
        self.episodes += len(exploration_rates)
        self.iterations += 1
        return [
            EpisodeRequest(self.seed_for(f"episode {first + place}"), rate)
            for place, rate in enumerate(exploration_rates)
        ]

    def evaluation_requests(self, number: int) -> list[EpisodeRequest]:
        """Requests of greedy episodes, with the same starts at every evaluation."""
        return [
            EpisodeRequest(self.seed_for(f"evaluation {place}"), None, explore=False)
            for place in range(number)
        ]

    def seed_for(self, purpose: str) -> int:
        """Seed for one purpose."""
        return md.derive_seed(self.seed, purpose) % 2**31  # gymnasium takes no larger ones

    def iteration_seed(self, purpose: str) -> int:
        """Seed for one purpose in the current iteration."""
        return self.seed_for(f"{purpose} {self.iterations}")

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> Any:
        """The seed and the counts."""
        return {"seed": self.seed, "episodes": self.episodes, "iterations": self.iterations}

    def set_state(self, state: Any) -> None:
        """Go on from a stored state."""
        self.seed = state["seed"]
        self.episodes = state["episodes"]
        self.iterations = state["iterations"]

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The constructor's arguments, for checkpoints."""
        return (self.seed,), {}
