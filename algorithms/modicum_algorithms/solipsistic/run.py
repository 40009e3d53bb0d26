"""Body of the experiment `solipsistic`: the loop of a trial."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np

import modicum as md
from modicum_algorithms.solipsistic.building import build_algorithm
from modicum_algorithms.solipsistic.checkpoints import (
    Progress,
    restore_checkpoint,
    save_checkpoint,
)
from modicum_algorithms.solipsistic.config import SolipsisticSettings
from modicum_algorithms.solipsistic.episodic.collection import evaluate_greedily
from modicum_algorithms.solipsistic.evaluation import mnist_game_metrics, model_metrics


def run_trial(config: SolipsisticSettings, trial: md.Trial) -> Iterator[md.Record]:
    """Train an algorithm, and yield a record after every `evaluate_every` training episodes."""
    algorithm = build_algorithm(config, trial.seed_for("algorithm") % 2**31)
    try:
        progress = Progress()
        if trial.checkpoint is not None:
            progress = restore_checkpoint(trial.checkpoint, algorithm)
        counter, returns = algorithm.counter, []
        while counter.episodes < config.episodes:
            results = algorithm.train()
            progress.steps += sum(map(len, algorithm.collected))
            returns += [float(episode.get_return()) for episode in algorithm.collected]
            if counter.episodes % config.evaluate_every:
                continue
            greedy = evaluate_greedily(algorithm, None)[0]["episode_returns"]
            progress.evaluation_episodes += len(greedy)
            metrics = {
                "evaluation/return": float(np.mean(greedy)),
                "evaluation/return_min": float(np.min(greedy)),
                "evaluation/episodes": float(progress.evaluation_episodes),
                "train/return": float(np.mean(returns)),
                "train/steps": float(progress.steps),
                **{
                    f"time/{part}": seconds
                    for part, seconds in algorithm.seconds.items()
                    if seconds
                },
                **model_metrics(results, config),
                **mnist_game_metrics(algorithm.get_module(), config),
            }
            returns = []
            trial.log.info(
                "episode %d: greedy return %.1f", counter.episodes, metrics["evaluation/return"]
            )
            checkpoint = None
            every = config.checkpoint_every or config.episodes
            if counter.episodes % every == 0 or counter.episodes == config.episodes:
                checkpoint = trial.scratch / "checkpoint"
                save_checkpoint(checkpoint, algorithm, config, progress)
            yield md.Record(budget=counter.episodes, metrics=metrics, checkpoint=checkpoint)
            if checkpoint is not None:  # copied by now
                shutil.rmtree(checkpoint)
    finally:
        algorithm.stop()
