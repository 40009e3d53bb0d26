"""The experiment `solipsistic`: how many episodes a method needs (chapter 5)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from typing import ClassVar

import modicum as md
from modicum_algorithms.solipsistic.config import SolipsisticSettings
from modicum_algorithms.solipsistic.names import MNIST_GAME

# Folder of RLlib's checkpoint in a trial's.
ALGORITHM = "algorithm"


class SolipsisticLearning(md.Experiment[SolipsisticSettings]):
    """Solipsistic reinforcement learning, PPO and DQN on the same environments (chapter 5)."""

    name = "solipsistic"
    version = "1"
    budget_unit = "episodes"
    Config = SolipsisticSettings
    needs_ray = True
    uses_torch = True
    metrics: ClassVar[Mapping[str, md.Metric]] = {
        "evaluation/return": md.Metric("Mean return of greedy episodes.", goal="max"),
        "evaluation/return_min": md.Metric("The smallest of these returns.", goal="max"),
        "evaluation/optimal_starts": md.Metric(
            "MNIST game: share of the ten digits at which the greedy action is 'plus 1', which is "
            "optimal from all of them.",
            goal="max",
        ),
        "evaluation/distinct_states": md.Metric(
            "MNIST game with discrete states: how many of the ten digits have a most probable "
            "state of their own, as a share.",
            goal="max",
        ),
        "evaluation/episodes": md.Metric(
            "Greedy episodes so far.", unit="episodes", evaluation_cost=True
        ),
        "train/return": md.Metric("Mean return of the training episodes since the last record."),
        "train/steps": md.Metric(
            "Steps in the environment in all training episodes.", unit="steps"
        ),
        "model/consistency": md.Metric(
            "First term of equation 5.4, mean over recent updates.", goal="min"
        ),
        "model/contrast": md.Metric("Its third term, without its weight.", goal="min"),
        "model/reward": md.Metric("Its second term, without its weight.", goal="min"),
        "model/predicted_reward": md.Metric("The same of predicted states.", goal="min"),
        "policy/imagined_return": md.Metric(
            "Mean return of perturbed policies inside the model, last iteration of the search."
        ),
        "time/collection": md.Metric(
            "Time of collecting training episodes, in all.", unit="s", timing=True
        ),
        "time/model": md.Metric(
            "Time of updating the model or the networks, in all.", unit="s", timing=True
        ),
        "time/policy": md.Metric("Time of the policy's search, in all.", unit="s", timing=True),
    }

    def check(self, config: SolipsisticSettings) -> None:
        """Refuse environments that there are not, and networks that do not fit their spaces."""
        from modicum_algorithms.solipsistic.building import check_environment

        check_environment(config)

    def data_digests(self, config: SolipsisticSettings) -> Mapping[str, str]:
        """Digest of the MNIST game's images."""
        if config.environment != MNIST_GAME:
            return {}
        from modicum_algorithms.solipsistic.building import image_digest

        return {"images": image_digest(config)}

    def resources(self, config: SolipsisticSettings) -> md.Resources:
        """A core for the trial, one for each runner, and the GPUs that are asked for."""
        return config.resources

    def saves_checkpoints(self, config: SolipsisticSettings) -> bool:
        """At the end at least."""
        return True

    def run(self, config: SolipsisticSettings, trial: md.Trial) -> Iterator[md.Record]:
        """Train, and evaluate now and then; a record's budget is the episodes collected."""
        from modicum_algorithms.solipsistic.agent_files import save_agent
        from modicum_algorithms.solipsistic.building import build_algorithm
        from modicum_algorithms.solipsistic.evaluation import Progress

        algorithm = build_algorithm(config, trial.seed_for("algorithm") % 2**31)
        progress = Progress(algorithm, config)
        try:
            if trial.checkpoint is not None:
                algorithm.restore_from_path(trial.checkpoint / ALGORITHM)
                progress.restore(trial.checkpoint)
            counter = algorithm.counter
            while counter.episodes < config.episodes:
                progress.train()
                if counter.episodes % config.evaluate_every:
                    continue
                metrics = progress.evaluate()
                trial.log.info(
                    "episode %d: greedy return %.1f", counter.episodes, metrics["evaluation/return"]
                )
                checkpoint = None
                every = config.checkpoint_every or config.episodes
                if counter.episodes % every == 0 or counter.episodes == config.episodes:
                    checkpoint = trial.scratch / "checkpoint"
                    algorithm.save_to_path(checkpoint / ALGORITHM)
                    save_agent(checkpoint, algorithm, config)
                    progress.save(checkpoint)
                yield md.Record(budget=counter.episodes, metrics=metrics, checkpoint=checkpoint)
                if checkpoint is not None:  # copied by now
                    shutil.rmtree(checkpoint)
        finally:
            algorithm.stop()
