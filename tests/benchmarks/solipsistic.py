"""How fast the parts of solipsistic reinforcement learning are, beside what they replace.

Environments: steps a second of CartPole from pixels, drawn directly and by gymnasium's renderer and
wrappers, and of the MNIST game, in one run and in turns; medians.
Learning: updates of the model a second, and steps a second that perturbed policies take inside it,
with the settings of the study of figure 5.5.
Run: python tests/benchmarks/solipsistic.py [--repeats 5] [--steps 300] [--threads 2]
"""

from __future__ import annotations

import argparse
import statistics
import time

import gymnasium as gym
import numpy as np
import ray
import torch

from modicum_algorithms.solipsistic import environments
from modicum_algorithms.solipsistic.algorithm import SolipsisticConfig

CASES = {
    "PixelCartPole, direct": (environments.PIXEL_CART_POLE, {"drawing": "direct"}),
    "PixelCartPole, rendered": (environments.PIXEL_CART_POLE, {"drawing": "rendered"}),
    "MnistGame": (environments.MNIST_GAME, {"images": "digits"}),
}


def play(env: gym.Env, actions: np.ndarray) -> float:
    """Seconds of a step with random actions; episodes that end are started anew."""
    env.reset(seed=0)
    started = time.perf_counter()
    for action in actions:
        _, _, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
    return (time.perf_counter() - started) / len(actions)


def steps(repeats: int, count: int) -> dict[str, float]:
    """Median seconds of a step for each case, taken in turns so that a busy moment meets them all.

    Args:
        repeats: Turns that count; one more before them warms up.
        count: Steps in a turn.
    """
    actions = np.random.default_rng(0).integers(0, 2, count)
    envs = {name: gym.make(identity, **given) for name, (identity, given) in CASES.items()}
    times: dict[str, list[float]] = {name: [] for name in envs}
    for _ in range(repeats + 1):
        for name, env in envs.items():
            times[name].append(play(env.unwrapped, actions))
    for env in envs.values():
        env.close()
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def report_steps(repeats: int, count: int) -> None:
    """Print the table of steps a second."""
    seconds = steps(repeats, count)
    print(f"{'environment':25} {'steps/s':>10} {'ms/step':>10}")
    for name, value in seconds.items():
        print(f"{name:25} {1 / value:10,.0f} {value * 1000:10.3f}")
    ratio = seconds["PixelCartPole, rendered"] / seconds["PixelCartPole, direct"]
    print(f"direct drawing: {ratio:.1f} times the steps a second of the rendered one")


def report_learning(repeats: int) -> None:
    """Print updates of the model and imagined steps a second, medians over iterations."""
    config = (
        SolipsisticConfig()
        .environment(environments.PIXEL_CART_POLE, env_config={"frames_after_fall": 10})
        .debugging(seed=0, log_level="ERROR")
    )
    algorithm = config.build_algo()
    options = config.options
    updates, imagined = [], []
    for _ in range(repeats + 1):
        before = dict(algorithm.seconds)
        algorithm.train()
        spent = {part: algorithm.seconds[part] - before[part] for part in before}
        updates.append(options.model_updates / spent["model"])
        # A return of so many steps takes one step fewer.
        steps_of_search = options.policy_iterations * options.perturbations * options.starts
        imagined.append(steps_of_search * (options.imagined_steps - 1) / spent["policy"])
    algorithm.stop()
    size = f"{options.trajectories} trajectories of {options.trajectory_length}"
    print(f"model: {statistics.median(updates[1:]):.1f} updates/s, each of {size} images at most")
    print(f"search: {statistics.median(imagined[1:]):,.0f} imagined steps/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    report_steps(arguments.repeats, arguments.steps)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    report_learning(arguments.repeats)


if __name__ == "__main__":
    main()
