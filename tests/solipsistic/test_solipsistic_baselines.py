"""PPO and DQN with whole episodes: their settings, what they learn from, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing

import modicum as md
from episodic_algorithms import building, learner, module, optimizer, same, small_dqn, updates
from modicum_algorithms.solipsistic.methods.dqn import EpisodicDQNConfig
from modicum_algorithms.solipsistic.methods.ppo import EpisodicPPOConfig
from toy_environments import SideOfLight


@pytest.fixture(scope="module")
def build(ray_cluster):
    with building() as build:
        yield build


def test_episodes_per_iteration_of_the_thesis():
    assert EpisodicPPOConfig().episodes_per_iteration == 5
    assert EpisodicDQNConfig().episodes_per_iteration == 1


@pytest.fixture(scope="module")
def ppo(build):
    """PPO after an iteration on images."""
    algorithm = build(EpisodicPPOConfig().training(clip_param=0.1), SideOfLight)
    algorithm.train()
    return algorithm


def test_settings_of_ppo_reach_its_learner(ppo):
    assert type(optimizer(ppo)) is torch.optim.Adam
    assert optimizer(ppo).param_groups[0]["lr"] == 3e-4
    config = learner(ppo).config
    assert (config.gamma, config.lambda_, config.clip_param) == (0.99, 0.95, 0.1)
    assert (config.vf_loss_coeff, config.entropy_coeff, config.use_kl_loss) == (0.5, 0.01, False)
    # 5 episodes of 20 steps, each with one more for its bootstrap, 10 times over.
    assert updates(ppo) == math.ceil(10 * 5 * 21 / 64)


def test_ppo_networks_are_separate_recognition_networks(ppo):
    networks = module(ppo)
    convolutions = [
        [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
        for network in (networks.policy_network, networks.value_network)
    ]
    for layers in convolutions:
        assert [layer.out_channels for layer in layers] == [8, 16, 16, 16]  # appendix C.2.2
    assert not torch.equal(convolutions[0][0].weight, convolutions[1][0].weight)


def train_batch(algorithm, episodes):
    """The batch that a learner makes of episodes."""
    pipeline = learner(algorithm)._learner_connector
    multi_agent_module = learner(algorithm).module
    return pipeline(rl_module=multi_agent_module, batch={}, episodes=episodes, shared_data={})[
        "default_policy"
    ]


def test_advantages_of_a_truncated_episode_bootstrap_from_its_last_observation(ppo):
    (episode,) = ppo.collect([None])
    assert episode.is_truncated
    assert not episode.is_terminated
    rewards = np.asarray(episode.get_rewards())
    networks = module(ppo).eval()
    with torch.no_grad():
        values = networks.value_network(torch.from_numpy(episode.get_observations()))[:, 0].numpy()
    errors = rewards + 0.99 * values[1:] - values[:-1]
    advantages = [
        sum((0.99 * 0.95) ** k * error for k, error in enumerate(errors[step:]))
        for step in range(len(errors))
    ]
    targets = train_batch(ppo, [episode])[Postprocessing.VALUE_TARGETS][:-1]
    np.testing.assert_allclose(targets, advantages + values[:-1], rtol=1e-4, atol=1e-5)


def test_ratios_of_probabilities_start_at_one(ppo):
    batch = train_batch(ppo, ppo.collect([None] * 2))
    outputs = module(ppo).forward_train(batch)[Columns.ACTION_DIST_INPUTS]
    distribution = module(ppo).get_train_action_dist_cls().from_logits(outputs)
    ratios = torch.exp(distribution.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP])
    torch.testing.assert_close(ratios, torch.ones_like(ratios))


@pytest.mark.slow
def test_ppo_learns_cartpole(build):
    config = EpisodicPPOConfig().training(lr=3e-3, episodes_per_iteration=10)
    algorithm = build(config.evaluation(evaluation_duration=5))

    def mean_return():
        return np.mean(algorithm.evaluate()["env_runners"]["episode_returns"])

    before = mean_return()
    for _ in range(4):
        algorithm.train()
    assert mean_return() > 3 * before


@pytest.mark.slow
def test_dqn_learns_from_images(build):
    config = EpisodicDQNConfig().training(
        lr=1e-3, train_batch_size_per_learner=32, num_steps_sampled_before_learning_starts=32
    )
    algorithm = build(config.evaluation(evaluation_duration=2), SideOfLight)
    for _ in range(5):
        algorithm.train()
    returns = algorithm.evaluate()["env_runners"]["episode_returns"]
    assert np.mean(returns) > 17  # of 20; chance is 10


def test_optimiser_and_loss_of_the_tutorial(build):
    algorithm = build(EpisodicDQNConfig())
    assert type(optimizer(algorithm)) is torch.optim.RMSprop
    group = optimizer(algorithm).param_groups[0]
    assert (group["lr"], group["alpha"], group["momentum"], group["centered"]) == (
        0.01, 0.99, 0, False,
    )  # fmt: skip
    config = learner(algorithm).config
    assert (config.gamma, config.td_error_loss_fn, config.double_q) == (0.999, "huber", False)
    assert (config.grad_clip, config.grad_clip_by) == (1.0, "value")
    assert algorithm.local_replay_buffer.capacity == 10_000
    assert config.total_train_batch_size == 128


def test_exploration_decays_exponentially_with_steps(build):
    config = EpisodicDQNConfig().training(num_steps_sampled_before_learning_starts=10**6)
    algorithm = build(config, SideOfLight)
    for iteration in range(21):
        if iteration in (10, 20):  # 200 and 400 steps
            rate = 0.05 + 0.85 * math.exp(-iteration * 20 / 200)
            assert algorithm.env_runner.module.exploration_rate == pytest.approx(rate)
        algorithm.train()


def test_exploration_rate_is_the_share_of_random_actions(build):
    networks = build(EpisodicDQNConfig().training(exploration_decay_steps=1e9)).env_runner.module
    observations = torch.zeros(4000, 4)
    greedy = networks.forward_inference({Columns.OBS: observations})[Columns.ACTIONS]
    networks.start_episode(0.6)
    explored = networks.forward_exploration({Columns.OBS: observations}, t=0)[Columns.ACTIONS]
    # Half of the random actions are the greedy one.
    assert (explored != greedy).float().mean() == pytest.approx(0.3, abs=0.03)


def test_the_target_network_is_replaced_after_every_tenth_episode(build):
    config = EpisodicDQNConfig().training(
        train_batch_size_per_learner=8,
        num_steps_sampled_before_learning_starts=8,
        updates_per_step=0.2,
    )
    algorithm = build(config)
    for episode in range(1, 22):
        algorithm.train()
        online, target = module(algorithm).q_network, module(algorithm).target_network
        assert same(online.state_dict(), target.state_dict()) == (episode in (10, 20))


@pytest.mark.parametrize("per_step", [1.0, 0.3])
def test_updates_are_made_per_step_once_there_are_enough(build, per_step):
    config = EpisodicDQNConfig().training(
        updates_per_step=per_step,
        train_batch_size_per_learner=8,
        num_steps_sampled_before_learning_starts=40,
    )
    algorithm = build(config, SideOfLight)
    made = []
    for _ in range(3):
        algorithm.train()
        made.append(updates(algorithm))
    assert made == [0, 20 * per_step, 40 * per_step]


@pytest.fixture(scope="module")
def dqn(build):
    """DQN on images, before any update."""
    return build(small_dqn(), SideOfLight)


def test_the_target_network_normalises_by_running_statistics(dqn):
    networks = module(dqn)
    observations = torch.randint(256, (2, 32, 32, 3), dtype=torch.uint8)
    before = networks.target_network(observations).detach()
    networks.train()
    torch.testing.assert_close(networks.target_network(observations), before)
    statistics = networks.target_network.layers[1].running_mean
    assert torch.equal(statistics, torch.zeros_like(statistics))


def test_images_stay_bytes_up_to_the_networks(dqn):
    seen = set()
    for network in (module(dqn).q_network, module(dqn).target_network):
        network.register_forward_pre_hook(lambda _, inputs: seen.add(inputs[0].dtype))
    dqn.train()
    assert seen == {torch.uint8}
    (episode,) = dqn.local_replay_buffer.episodes
    assert episode.get_observations().dtype == np.uint8


@pytest.mark.parametrize(
    ("config", "setting", "message"),
    [
        (EpisodicPPOConfig, {"episodes_per_iteration": 0}, "episodes_per_iteration: .* equal to 1"),
        (EpisodicPPOConfig, {"max_episode_steps": 0}, "max_episode_steps: .* equal to 1"),
        (EpisodicPPOConfig, {"recognition": "cnn"}, "recognition: input should be 'auto'"),
        (EpisodicDQNConfig, {"updates_per_step": 0}, r"updates_per_step: .* than 0 \(got 0\)"),
        (EpisodicDQNConfig, {"target_update_episodes": 0}, "target_update_episodes: .* equal to 1"),
        (EpisodicDQNConfig, {"initial_exploration_rate": 2}, "initial_exploration_rate: .* to 1"),
        (EpisodicDQNConfig, {"double_q": True}, "double_q: must be False, got True"),
        (EpisodicDQNConfig, {"n_step": 3}, "n_step: must be 1, got 3"),
        (EpisodicDQNConfig, {"target_network_update_freq": 9}, "target_network_update_freq: "),
        (EpisodicDQNConfig, {"clip_param": 0.1}, "unknown setting 'clip_param'"),
    ],
)
def test_bad_settings_are_refused(config, setting, message):
    with pytest.raises(md.InputError, match=f"^{message}"):
        config().training(**setting).validate()


def test_several_environments_in_a_runner_are_refused():
    with pytest.raises(md.InputError, match=r"^num_envs_per_env_runner: must be 1, got 2"):
        EpisodicPPOConfig().env_runners(num_envs_per_env_runner=2).validate()


def test_networks_and_actions_that_do_not_fit_are_refused(build):
    with pytest.raises(md.InputError, match=r"^recognition: must be mlp, or auto"):
        build(EpisodicPPOConfig().training(recognition="digits"))
    with pytest.raises(md.InputError, match=r"^action_space: must be Discrete for DQN"):
        build(EpisodicDQNConfig(), "Pendulum-v1")
