"""The experiment `solipsistic`: return against training episodes (chapter 5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import modicum as md
from modicum_algorithms.solipsistic.config import MNIST_GAME, SolipsisticSettings


class SolipsisticLearning(md.Experiment[SolipsisticSettings]):
    """Solipsistic reinforcement learning, PPO and DQN on the same environments (chapter 5)."""

    name = "solipsistic"
    version = "1"
    budget_unit = "episodes"
    Config = SolipsisticSettings
    needs_ray = True
    uses_torch = True
    metrics: ClassVar[Mapping[str, md.Metric]] = {
        "evaluation/return": md.Metric("Mean return of the greedy episodes.", goal="max"),
        "evaluation/return_min": md.Metric("Smallest return of the greedy episodes.", goal="max"),
        "evaluation/optimal_starts": md.Metric(
            "MNIST game: share of the ten digits at which the greedy action is 'plus 1', the "
            "optimal action at all of them.",
            goal="max",
        ),
        "evaluation/distinct_states": md.Metric(
            "MNIST game with discrete states: number of different most probable states of the ten "
            "digits, divided by ten.",
            goal="max",
        ),
        "evaluation/episodes": md.Metric(
            "Greedy episodes so far.", unit="episodes", evaluation_cost=True
        ),
        "train/return": md.Metric("Mean return of the training episodes since the last record."),
        "train/steps": md.Metric(
            "Environment steps of all training episodes so far.", unit="steps"
        ),
        "model/consistency": md.Metric(
            "First term of equation 5.4, mean over recent updates.", goal="min"
        ),
        "model/contrast": md.Metric(
            "Third term of equation 5.4 without its weight, mean over recent updates.", goal="min"
        ),
        "model/reward": md.Metric(
            "Second term of equation 5.4 without its weight, mean over recent updates.", goal="min"
        ),
        "model/predicted_reward": md.Metric(
            "Reward loss of predicted states, mean over recent updates.", goal="min"
        ),
        "policy/imagined_return": md.Metric(
            "Mean return of the perturbed policies inside the model, in the last iteration of the "
            "policy search."
        ),
        "time/collection": md.Metric(
            "Time spent on collecting training episodes so far.", unit="s", timing=True
        ),
        "time/model": md.Metric(
            "Time spent on updates of the model or the networks so far.", unit="s", timing=True
        ),
        "time/policy": md.Metric("Time spent on the policy search so far.", unit="s", timing=True),
    }

    def check(self, config: SolipsisticSettings) -> None:
        """Refuse unknown environments, and networks that do not suit the environment's spaces."""
        from modicum_algorithms.solipsistic.building import check_settings

        check_settings(config)

    def data_digests(self, config: SolipsisticSettings) -> Mapping[str, str]:
        """Digest of the MNIST game's images; none in other environments."""
        if config.environment != MNIST_GAME:
            return {}
        from modicum_algorithms.solipsistic.environments.digit_images import image_digest

        return {"images": image_digest(config.environment_options)}

    def resources(self, config: SolipsisticSettings) -> md.Resources:
        """A core for the trial, one for each environment runner, and the GPUs of the learner."""
        runners = (md.Bundle(),) * config.environment_runners
        return md.Resources(trial=md.Bundle(gpus=config.gpus), actors=runners)

    def saves_checkpoints(self, config: SolipsisticSettings) -> bool:
        """Always true: every trial ends with a checkpoint."""
        return True

    def run(self, config: SolipsisticSettings, trial: md.Trial) -> Iterator[md.Record]:
        """Train and evaluate in turn; a record's budget is the number of training episodes."""
        from modicum_algorithms.solipsistic.run import run_trial

        return run_trial(config, trial)
