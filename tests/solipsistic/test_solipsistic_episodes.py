"""Whole episodes in every method: seeds, evaluation, checkpoints, remote runners and faults."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core.columns import Columns

import modicum as md
from episodic_algorithms import (
    building,
    kill_a_runner,
    same,
    small,
    small_dqn,
    small_markov,
    small_ppo,
    updates,
    wait_for_runners,
    weights,
)
from toy_environments import Broken, Endless, SideOfLight


@pytest.fixture(scope="module")
def build(ray_cluster):
    with building() as build:
        yield build


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize("config", [small_ppo, small_dqn])
def test_an_iteration_collects_its_episodes(build, config):
    number = 3
    algorithm = build(config().training(episodes_per_iteration=number))
    for iteration in (1, 2):
        results = algorithm.train()["env_runners"]
        assert results["num_episodes_lifetime"] == algorithm.counter.episodes == iteration * number
        assert results["num_episodes"] == number


@pytest.mark.parametrize("config", [small, slow(small_ppo), slow(small_dqn)])
def test_a_seed_makes_runs_equal(build, config):
    runs = []
    for seed in (1, 1, 2):
        algorithm = build(config(), seed=seed)
        for _ in range(2):
            algorithm.train()
        runs.append(weights(algorithm))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_without_a_seed_runs_differ(build):
    first, second = (build(small_ppo(), seed=None) for _ in range(2))
    assert first.counter.seed != second.counter.seed


# --- Evaluation ---


@pytest.mark.parametrize(("config", "interval"), [(small, None), (small_ppo, None), (small_dqn, 1)])
def test_evaluation_is_greedy_and_takes_nothing_from_the_budget(build, config, interval):
    """The same starts every time, against a loop over the steps."""
    evaluated = config().evaluation(evaluation_interval=interval, evaluation_duration=3)
    algorithm = build(evaluated)
    algorithm.train()
    counted, remembered = algorithm.counter.episodes, memory(algorithm)
    returns = algorithm.evaluate()["env_runners"]["episode_returns"]
    again = algorithm.evaluate()["env_runners"]
    assert again["episode_returns"] == returns
    assert again["episode_return_mean"] == np.mean(returns)
    assert (algorithm.counter.episodes, memory(algorithm)) == (counted, remembered)
    acting = algorithm.env_runner.module
    environment = algorithm.env_runner.env.unwrapped.envs[0]
    for request, expected in zip(algorithm.counter.evaluation_requests(3), returns, strict=True):
        observation, _ = environment.reset(seed=request.seed)
        total, done = 0.0, False
        while not done:
            output = acting.forward_inference({Columns.OBS: torch.from_numpy(observation)[None]})
            scores = output.get(Columns.ACTION_DIST_INPUTS)
            action = int(output[Columns.ACTIONS] if scores is None else scores.argmax())
            observation, reward, terminated, truncated, _ = environment.step(action)
            total, done = total + reward, terminated or truncated
        assert total == expected


def memory(algorithm):
    """Returns of the episodes in the replay buffer; none for PPO."""
    buffer = getattr(algorithm, "replay_buffer", algorithm.local_replay_buffer)
    return [] if buffer is None else [episode.get_return() for episode in buffer.episodes]


def test_evaluation_does_not_change_training(build):
    trained = []
    for interval in (None, 1):
        algorithm = build(small_dqn().evaluation(evaluation_interval=interval))
        for _ in range(3):
            results = algorithm.train()
        trained.append(weights(algorithm))
    assert len(results["evaluation"]["env_runners"]["episode_returns"]) == 10
    assert same(*trained)


# --- Checkpoints ---

GAME = "modicum_algorithms.solipsistic.environments:modicum/MnistGame-v0"
CASES = {
    "images": (small(), SideOfLight),
    "markov": (small_markov(recognition="digits"), GAME),
    "vectors": (small(reinitialise_policy=False), "CartPole-v1"),
    "ppo": (small_ppo(), SideOfLight),
    "dqn": (small_dqn(), SideOfLight),  # whose target network is replaced after the third episode
}


@pytest.mark.parametrize("case", [slow("images"), "markov", "vectors", slow("ppo"), slow("dqn")])
def test_a_restored_algorithm_goes_on_as_if_never_stopped(build, tmp_path, case):
    config, environment = CASES[case]
    config = config.copy().evaluation(evaluation_duration=1)
    algorithm = build(config.copy(), environment, seed=None)
    algorithm.train()
    algorithm.save_to_path(tmp_path)
    again = [Algorithm.from_checkpoint(str(tmp_path))]
    if case == "vectors":  # also two others that have been trained as long, or longer
        others = [build(config.copy(), environment, 8) for _ in "ab"]
        for number, other in enumerate(others):
            for _ in range(1 + number):
                other.train()
        others[0].restore_from_path(str(tmp_path))
        others[1].set_state(algorithm.get_state())
        again += others
    runs = []
    for each in (algorithm, *again):
        returns = [each.train()["env_runners"]["episode_return_mean"] for _ in range(2)]
        returns += each.evaluate()["env_runners"]["episode_returns"]
        counts = (each.counter.episodes, updates(each), memory(each))
        runs.append((returns, counts, weights(each)))
    again[0].stop()
    for returns, counts, found in runs[1:]:
        assert returns == runs[0][0]
        assert counts == runs[0][1]
        assert same(found, runs[0][2])
    assert algorithm.counter.episodes == 3 * config.episodes_per_iteration
    assert updates(algorithm) > 0


# --- Runners in other processes, and faults ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "runners", "killed"),
    [
        (small(), 2, True),
        (small_dqn(episodes_per_iteration=3), 2, False),
        (small_ppo(), 1, True),
    ],
    ids=["one of two is killed", "two share three episodes", "the last one is killed"],
)
def test_training_is_the_same_with_remote_runners(build, config, runners, killed):
    """A killed runner is replaced, and its episodes are collected again."""
    trained = []
    for number in (0, runners):
        algorithm = build(config.copy().env_runners(num_env_runners=number), SideOfLight)
        algorithm.train()
        if number and killed:
            kill_a_runner(algorithm)
        algorithm.train()
        algorithm.train()
        trained.append(weights(algorithm))
        if number:
            wait_for_runners(algorithm, number)
        algorithm.stop()
    assert same(*trained)


@pytest.mark.slow
def test_evaluation_by_remote_runners_is_the_same(build):
    returns = []
    for runners in (0, 2):
        evaluated = small_ppo().evaluation(
            evaluation_num_env_runners=runners, evaluation_duration=5
        )
        algorithm = build(evaluated)
        algorithm.train()
        returns.append(algorithm.evaluate()["env_runners"]["episode_returns"])
        algorithm.stop()
    assert returns[0] == returns[1]


@pytest.mark.parametrize(("config", "runners"), [(small, 0), slow(small_ppo, 1)])
@pytest.mark.parametrize(
    ("environment", "error", "message"),
    [
        (Broken, RuntimeError, "ArithmeticError: the pole has come off"),
        (Endless, md.InputError, r"^max_episode_steps: .* within 20 steps"),
    ],
)
def test_a_fault_of_an_environment_is_named(build, config, runners, environment, error, message):
    configured = config().training(max_episode_steps=20).env_runners(num_env_runners=runners)
    algorithm = build(configured, environment)
    with pytest.raises(error, match=message):
        algorithm.train()
    algorithm.stop()
