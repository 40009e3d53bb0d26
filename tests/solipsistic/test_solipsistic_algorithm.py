"""Algorithm 1 on RLlib: what it stores, learns from, and acts on; how it goes on and refuses."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import pickle
from collections import Counter

import gymnasium as gym
import numpy as np
import pytest
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_episode import SingleAgentEpisode

import modicum as md
from episodic_algorithms import building, same, small, small_markov, weights
from modicum_algorithms.solipsistic.algorithm import Solipsistic, SolipsisticConfig, training_batch
from modicum_algorithms.solipsistic.environments.mnist_game import MnistGame
from modicum_algorithms.solipsistic.methods.solipsistic.replay import (
    Trajectories,
    TrajectoryReplayBuffer,
)
from modicum_algorithms.solipsistic.networks import measure_batch_statistics
from toy_environments import Shaped, SideOfLight

VECTORS = gym.spaces.Box(-1, 1, (3,), np.float32)
IMAGES = gym.spaces.Box(0, 255, (28, 28, 1), np.uint8)
TWO = gym.spaces.Discrete(2)


@pytest.fixture(scope="module")
def build(ray_cluster):
    with building() as build:
        yield build


def build_learner(observations=VECTORS, actions=TWO, **settings):
    """A learner without an algorithm around it."""
    config = small(**settings).debugging(seed=0)
    config.validate()
    torch.manual_seed(0)
    return config.build_learner(spaces={DEFAULT_MODULE_ID: (observations, actions)})


def build_module(observations=VECTORS, actions=TWO, **settings):
    """The module that acts."""
    return build_learner(observations, actions, **settings).module[DEFAULT_MODULE_ID]


# --- The replay buffer ---


def an_episode(length, *, terminated=True, seed=0, shape=(3,), dtype=np.float32):
    """An episode whose observations, actions and rewards all differ."""
    rng = np.random.default_rng(seed)
    observations = rng.integers(0, 256, (length + 1, *shape)).astype(dtype)
    actions = rng.integers(0, 2, length)
    return episode_of(observations, actions, 0.5 + 0.5 * rng.random(length), terminated=terminated)


def a_game(game, actions, seed=None):
    """An episode of the MNIST game."""
    observations, rewards = [game.reset(seed=seed)[0]], []
    for action in actions:
        x, reward, *_ = game.step(action)
        observations.append(x)
        rewards.append(reward)
    return episode_of(observations, actions, rewards, terminated=False)


def episode_of(observations, actions, rewards, *, terminated):
    return SingleAgentEpisode(
        observations=list(observations),
        actions=list(actions),
        rewards=list(rewards),
        terminated=terminated,
        truncated=not terminated,
        len_lookback_buffer=0,
    ).to_numpy()


def buffer_of(*episodes, absorbing_steps=0, capacity=1000, seed=0):
    buffer = TrajectoryReplayBuffer(capacity, absorbing_steps)
    buffer.add(list(episodes))
    buffer.rng = np.random.default_rng(seed)
    return buffer


def windows_of(episode, length, absorbing_steps):
    """Every window, by a walk along the episode: a list of lines (x, a, r, present, rewarded).

    None stands for what nothing is said about: padding, and actions before padding.
    """
    steps = len(episode)
    line = []
    for place in range(steps + 1):
        x, reward = episode.get_observations(place), episode.get_rewards(place - 1) if place else 0
        action = episode.get_actions(place) if place < steps else None
        line.append([x, action, reward, True, place > 0])
    if episode.is_terminated:
        line += [[episode.get_observations(-1), None, 0, True, True]] * absorbing_steps
    padding = [[None, None, 0, False, False]]
    starts = range(max(1, len(line) - length + 1))
    return [(line + padding * length)[start : start + length] for start in starts]


def matches(trajectory, window):
    observations, actions, rewards, present, rewarded = trajectory
    for place, (x, action, reward, is_present, is_rewarded) in enumerate(window):
        if (present[place], rewarded[place]) != (is_present, is_rewarded):
            return False
        if is_present and not np.array_equal(observations[place], x):
            return False
        if place + 1 < len(window) and action is not None and actions[place] != action:
            return False
        if abs(rewards[place] - reward) > 1e-6:
            return False
    return True


@pytest.mark.parametrize("terminated", [True, False])
@pytest.mark.parametrize("absorbing_steps", [0, 2, 9])
@pytest.mark.parametrize("steps", [1, 3, 4, 7])
def test_windows_are_those_of_a_walk_along_the_episode(steps, absorbing_steps, terminated):
    """Each as often as any other."""
    length = 4
    episode = an_episode(steps, terminated=terminated)
    expected = windows_of(episode, length, absorbing_steps)
    number = 60 * len(expected)
    sample = buffer_of(episode, absorbing_steps=absorbing_steps).sample_trajectories(number, length)
    columns = (sample.observations, sample.actions, sample.rewards, sample.present, sample.rewarded)
    assert [column.shape[:2] for column in columns] == [
        (number, length), (number, length - 1), *[(number, length)] * 3
    ]  # fmt: skip
    found = Counter()
    for trajectory in zip(*columns, strict=True):
        # Windows that lie past the end altogether look the same.
        fitting = [place for place, window in enumerate(expected) if matches(trajectory, window)]
        assert fitting
        found[tuple(fitting)] += 1
    assert {place for fitting in found for place in fitting} == set(range(len(expected)))
    for fitting, count in found.items():
        assert count == pytest.approx(60 * len(fitting), abs=35 * len(fitting))


def test_episodes_are_drawn_whatever_their_length():
    episodes = [an_episode(steps, seed=steps) for steps in (2, 30)]
    buffer = buffer_of(*episodes)
    starts = buffer.sample_observations(400, first=True)
    short = (starts == episodes[0].get_observations(0)).all(-1)
    assert short.sum() == pytest.approx(200, abs=40)
    assert (starts[~short] == episodes[1].get_observations(0)).all()
    any_time = buffer.sample_observations(400)
    of_the_short = [(x == episodes[0].get_observations()).all(-1).any() for x in any_time]
    assert sum(of_the_short) == pytest.approx(200, abs=40)
    places = [int((x == episodes[1].get_observations()).all(-1).argmax()) for x in any_time]
    assert max(places) >= 28  # to the last one


def test_rewards_come_with_the_observation_that_followed_the_action():
    """In the MNIST game a reward of 1 is received together with an image of a 9."""
    game = MnistGame(start=7)
    images = {digit: game.reset(options={"digit": digit})[0] for digit in range(10)}
    sample = buffer_of(a_game(game, [1, 1, 1, 0, 1])).sample_trajectories(50, 3)
    nine = (sample.observations == images[9]).all((2, 3, 4))
    assert nine.any()
    assert np.array_equal(sample.rewards == 1, nine)


def test_the_buffer_s_state_is_exact_and_much_smaller_than_its_images():
    game = MnistGame()
    episodes = [
        a_game(game, np.random.default_rng(number).integers(0, 2, 14), seed=number)
        for number in range(3)
    ]
    buffer = buffer_of(*episodes, an_episode(4, shape=(28, 28, 1), dtype=np.uint8))
    stored = pickle.dumps(buffer.get_state())
    raw = sum(episode.get_observations().nbytes for episode in episodes)
    noise = 5 * 28 * 28
    assert len(stored) - noise < raw / 2
    restored = TrajectoryReplayBuffer(1000, absorbing_steps=0)
    restored.add(an_episode(9))  # which goes
    restored.set_state(pickle.loads(stored))
    assert restored.get_num_timesteps() == buffer.get_num_timesteps() == 3 * 14 + 4
    assert restored.get_added_timesteps() == buffer.get_added_timesteps()
    for one, other in zip(buffer.episodes, restored.episodes, strict=True):
        assert (one.id_, one.is_terminated, one.is_truncated) == (
            other.id_, other.is_terminated, other.is_truncated,
        )  # fmt: skip
        for name in ("get_observations", "get_actions", "get_rewards"):
            values, again = getattr(one, name)(), getattr(other, name)()
            assert values.dtype == again.dtype
            np.testing.assert_array_equal(values, again)
    for each in (buffer, restored):
        each.rng = np.random.default_rng(1)
    assert same(*({"x": torch.tensor(b.sample_trajectories(8, 6).observations)} for b in
                  (buffer, restored)))  # fmt: skip


def test_the_oldest_episodes_make_way():
    episodes = [an_episode(4, seed=seed) for seed in range(6)]
    buffer = buffer_of(*episodes, capacity=10)
    assert [episode.id_ for episode in buffer.episodes] == [e.id_ for e in episodes[-2:]]
    restored = TrajectoryReplayBuffer(10, absorbing_steps=0)
    restored.set_state(buffer.get_state())
    restored.add(an_episode(4, seed=9))
    assert restored.episodes[0].id_ == episodes[-1].id_
    assert restored.get_added_timesteps() == 28


# --- Batch normalisation ---


def test_measured_statistics_recognise_as_in_training_and_running_averages_do_not():
    network = build_module(IMAGES).model
    images = torch.randint(0, 256, (400, 28, 28, 1), dtype=torch.uint8)
    images[200:] //= 4

    def recognised():
        with torch.no_grad():
            return network.recognise(images)

    optimiser = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(5):  # a few quick steps
        loss = (network.train().recognise(images) - 1).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    in_training = recognised()
    network.eval()
    spread = in_training.std()
    assert (recognised() - in_training).abs().mean() > 0.3 * spread
    measure_batch_statistics(network, network.recognise, images)
    assert not network.training
    assert (recognised() - in_training).abs().max() < 0.02 * spread


def test_statistics_of_many_observations_weigh_them_all_the_same():
    """One more than fits into a pass, and that one unlike the others."""
    layer = torch.nn.BatchNorm1d(1)
    values = torch.zeros(513, 1)
    values[-1] = 513.0
    measure_batch_statistics(layer, layer, values)
    assert layer.running_mean.item() == pytest.approx(1.0, rel=0.01)


# --- The model's updates: equation 5.4 ---


def reference_objective(model, settings, sample, orders):
    """Equation 5.4 by loops over trajectories and time; `orders` are the random partner orders."""
    markov = settings["dynamics"] == "markov"
    count, length = sample.present.shape
    x, actions = torch.tensor(sample.observations), sample.actions
    states = {
        (b, t): model.recognise(x[b, t][None])[0]
        for b, t in itertools.product(range(count), range(length))
        if sample.present[b, t]
    }

    def following(state, action):
        if markov:
            return sum(
                state[s].exp() * model.transitions[action, s] for s in range(len(state))
            ).log()
        return model.step(state[None], torch.eye(2)[action][None])[0]

    def divergence(p, q):
        return (p.exp() * (p - q)).sum() if markov else ((p - q) ** 2).sum()

    def reward_cost(state, reward):
        mean = model.expected_reward(state)
        return -(reward * mean.log() + (1 - reward) * (1 - mean).log())

    def predicted(b, t, ahead):
        state = states[b, t - ahead]
        for place in range(t - ahead, t):
            state = following(state, actions[b, place])
        return state

    def average(values):
        return sum(values) / len(values)

    later = [(b, t) for b, t in states if t > 0]
    if markov:
        groups = [{(b, t): predicted(b, t, 1) for b, t in later}]
    elif settings["prediction_steps"] is None:
        groups = [{(b, t): predicted(b, t, t) for b, t in later}]
    else:
        groups = [
            {(b, t): predicted(b, t, ahead) for b, t in later if t >= ahead}
            for ahead in range(1, settings["prediction_steps"] + 1)
        ]
    groups = [group for group in groups if group]
    consistency, rewards, contrasts = [], [], []
    for group, order in zip(groups, orders, strict=False):
        consistency.append(average([divergence(p, states[k]) for k, p in group.items()]))
        rewards.append(
            average([reward_cost(p, float(sample.rewards[k])) for k, p in group.items()])
        )
        hinge = lambda value: (settings["margin"] - value).clamp(min=0)  # noqa: E731
        if settings["contrast"] == "same_time":
            partner = {b: order[place - 1] for place, b in enumerate(order)}
            assert all(other != b for b, other in partner.items())
            costs = [
                hinge(divergence(p, states[partner[b], t]))
                for (b, t), p in group.items()
                if (partner[b], t) in states
            ]
            contrasts.append(average(costs) if costs else torch.tensor(0.0))
        elif settings["contrast"] == "any_time":
            contrasts.append(
                average([
                    hinge(divergence(p, states[other]))
                    for own, p in group.items() for other in group if other != own
                ])
            )  # fmt: skip
        elif settings["contrast"] == "information_bottleneck":
            contrasts.append(
                average([
                    divergence(p, states[own])
                    + sum((-divergence(p, states[other])).exp() for other in group).log()
                    for own, p in group.items()
                ])
            )  # fmt: skip
    recognised = average([
        reward_cost(states[k], float(sample.rewards[k])) for k in states if sample.rewarded[k]
    ])  # fmt: skip
    total = average(consistency) + settings["reward_weight"] * recognised
    if settings["reward_of_predictions"]:
        total = total + settings["reward_weight"] * average(rewards)
    if contrasts:
        total = total + settings["contrast_weight"] * average(contrasts)
    return total


def test_settings_of_the_objective_are_those_of_the_thesis():
    config = SolipsisticConfig().options
    assert (config.contrast_weight, config.reward_weight, config.margin) == (1, 2, 5)


LONG, SHORT = (7, 2, 9), (2, 3, 1)  # steps of the episodes, whose windows have 4


@pytest.mark.parametrize("contrast", ["same_time", "any_time", "information_bottleneck", "none"])
@pytest.mark.parametrize(
    ("dynamics", "prediction_steps", "reward_of_predictions", "steps"),
    [
        ("memory", None, True, LONG),
        ("memory", 3, True, LONG),
        ("memory", 4, False, SHORT),
        ("markov", None, True, LONG),
    ],
)
def test_an_update_follows_equation_5_4(
    dynamics, prediction_steps, reward_of_predictions, contrast, steps
):
    settings = {
        "dynamics": dynamics,
        "prediction_steps": prediction_steps,
        "reward_of_predictions": reward_of_predictions,
        "contrast": contrast,
        "contrast_weight": 0.7,
        "reward_weight": 1.3,
        "margin": 0.4 if dynamics == "memory" else 0.1,
    }
    own = build_learner(**settings, grad_clip=None)
    module = own.module[DEFAULT_MODULE_ID]
    if dynamics == "markov":  # which starts with states that are all alike
        module.model.transition_logits_ASS.data *= 10
        module.model.reward_outputs_S.data = torch.linspace(-1, 1, 4)
        module.model.recognition.layers[-1].weight.data *= 5
    twin, policy = (
        copy.deepcopy(module.model),
        copy.deepcopy(getattr(module, "policy_weights_P", 0)),
    )
    episodes = [an_episode(number, seed=number) for number in steps]
    for episode in episodes:
        episode.observations.data /= 256
    buffer = buffer_of(*episodes, absorbing_steps=steps is LONG)
    sample = buffer.sample_trajectories(4, 5)
    own.seed(11)
    results = own.update(batch=training_batch(sample))
    torch.manual_seed(11)
    orders = [torch.randperm(4).tolist() for _ in range(4)]
    expected = reference_objective(twin, settings, sample, orders)
    found = results[DEFAULT_MODULE_ID]["total_loss"].peek()
    assert float(found) == pytest.approx(expected.item(), rel=1e-4)
    expected.backward()
    gradients = {name: values.grad for name, values in twin.named_parameters()}
    assert any(values.abs().max() > 1e-3 for values in gradients.values())
    for name, values in module.model.named_parameters():
        torch.testing.assert_close(values.grad, gradients[name], rtol=1e-3, atol=1e-5)
    if dynamics == "memory":
        assert torch.equal(policy, module.policy_weights_P)


def test_where_no_other_trajectory_is_as_long_there_is_no_contrast():
    own = build_learner(prediction_steps=4)
    long, short = (
        buffer_of(an_episode(steps, seed=steps)).sample_trajectories(number, 5)
        for steps, number in ((4, 1), (1, 3))
    )
    columns = (
        np.concatenate([getattr(each, field.name) for each in (long, short)])
        for field in dataclasses.fields(Trajectories)
    )
    own.update(batch=training_batch(Trajectories(*columns)))
    for values in own.module[DEFAULT_MODULE_ID].parameters():
        assert values.isfinite().all()


def test_the_policy_is_no_parameter_of_the_model():
    module = build_module()
    trained = [name for name, values in module.named_parameters() if values.requires_grad]
    assert trained
    assert all(name.startswith("model.") for name in trained)
    assert "policy_weights_P" in module.state_dict()  # so it travels with the weights


def test_the_averaged_model_follows_the_trained_one_with_its_decay():
    own = build_learner(averaging=0.75)
    module = own.module[DEFAULT_MODULE_ID]
    buffer = buffer_of(*(an_episode(number, seed=number) for number in (6, 9)))
    expected = {name: values.clone() for name, values in module.model.named_parameters()}
    for _ in range(3):
        own.update(batch=training_batch(buffer.sample_trajectories(4, 5)))
        for name, values in module.model.named_parameters():
            expected[name] = 0.75 * expected[name] + 0.25 * values.detach()
    for name, values in module.averaged_model.named_parameters():
        torch.testing.assert_close(values, expected[name])
        assert not torch.equal(values, module.model.get_parameter(name))
        assert not values.requires_grad


# --- The search for a policy ---


def test_the_search_depends_on_weights_starts_and_seed_alone():
    own = build_learner()
    module = own.module[DEFAULT_MODULE_ID]
    starts = torch.randn(3, 2, 3).numpy()

    def found(starts, seed, noise):
        torch.manual_seed(noise)
        module.policy_weights_P.normal_()  # what it was before
        before = copy.deepcopy(module.model.state_dict())
        results = own.search_policy(starts, seed)
        assert same(before, module.model.state_dict())
        return module.policy_weights_P.clone(), results["imagined_return"]

    policy, value = found(starts, 5, noise=0)
    again, value_again = found(starts, 5, noise=1)
    assert torch.equal(policy, again)
    assert value == value_again
    assert not torch.equal(policy, found(starts, 6, noise=0)[0])
    other_starts, _ = found(starts + 1, 5, noise=0)
    assert not torch.equal(policy, other_starts)


def test_the_search_goes_on_from_the_policy_that_there_is_if_told_so():
    own = build_learner(reinitialise_policy=False, policy_lr=1e-3)
    module = own.module[DEFAULT_MODULE_ID]
    before = module.policy_weights_P.clone()
    own.search_policy(torch.randn(3, 2, 3).numpy(), 5)
    moved = (module.policy_weights_P - before).abs().max()
    assert 0 < moved < 0.004  # three steps of Adam


# --- Acting ---


def acting(module, observations, *, rate=None, explore=True):
    """Actions at the first step."""
    module.start_episode(rate)
    forward = module.forward_exploration if explore else module.forward_inference
    return forward({Columns.OBS: observations})[Columns.ACTIONS]


def policy_probability(module, observations):
    """Of action 1."""
    with torch.no_grad():
        states = module.eval().averaged_model.recognise(observations)
        outputs = module.policy.outputs_of(module.policy_weights_P[None], states[None])[0]
    return torch.sigmoid(outputs)[:, 0]


def varied(module):
    """With states and a policy that tell observations apart."""
    torch.manual_seed(2)
    module.model.recognition.layers[-1].weight.data *= 10
    module.average(0)
    module.policy_weights_P.normal_()
    return module


def test_exploration_rate_is_the_share_of_random_actions():
    module = varied(build_module())
    observations = torch.randn(6000, 3)
    probability = policy_probability(module, observations)
    sure = (probability > 0.9) | (probability < 0.1)
    assert sure.float().mean() > 0.2
    for rate in (0.0, 0.5, 1.0):
        torch.manual_seed(1)
        actions = acting(module, observations, rate=rate).float()
        expected = (1 - rate) * probability + rate * 0.5
        for some in (sure & (probability > 0.5), sure & (probability < 0.5), ~sure):
            assert actions[some].mean() == pytest.approx(expected[some].mean().item(), abs=0.05)
    greedy = acting(module, observations, explore=False)
    assert torch.equal(greedy, acting(module, observations, explore=False))
    assert torch.equal(greedy, (probability > 0.5).long())


def test_continuous_actions_are_the_policy_s_with_noise_or_uniform():
    actions = gym.spaces.Box(-2, 2, (2,), np.float32)
    module = build_module(actions=actions, action_noise=0.1)
    observations = torch.randn(4000, 3)
    greedy = acting(module, observations, explore=False)
    with torch.no_grad():
        states = module.model.recognise(observations)
        means = module.policy.outputs_of(module.policy_weights_P[None], states[None])[0]
    assert torch.equal(greedy, means)
    noisy = acting(module, observations, rate=0.0)
    assert (noisy - greedy).std().item() == pytest.approx(0.1, rel=0.1)
    random = acting(module, observations, rate=1.0)
    assert random.abs().max() <= 1
    assert random.std().item() == pytest.approx(2 / 12**0.5, rel=0.05)
    assert torch.corrcoef(torch.stack([random[:, 0], greedy[:, 0]]))[0, 1].abs() < 0.06


@pytest.mark.parametrize("replanning", [True, False])
def test_without_replanning_actions_follow_predictions_of_the_first_observation(replanning):
    module = varied(build_module(replanning=replanning))
    first, *later = torch.randn(12, 16, 3)

    def actions(observations):
        module.start_episode(None)
        steps = [module.forward_inference({Columns.OBS: x})[Columns.ACTIONS] for x in observations]
        return torch.stack(steps)

    found = actions([first, *later])
    assert torch.equal(found, actions([first, *[x.flip(0) for x in later]])) == (not replanning)
    assert not torch.equal(found, actions([first.flip(0), *later]))
    if not replanning:
        states = module.model.recognise(first)
        for chosen in found:
            outputs = module.policy.outputs_of(module.policy_weights_P[None], states[None])[0]
            assert torch.equal(chosen, (outputs[:, 0] > 0).long())
            states = module.model.step(states, torch.eye(2)[chosen])


def test_the_markov_model_plans_for_the_steps_that_are_left():
    """Against the best of all sequences of decisions, at each step of an episode."""
    horizon = 5
    module = build_module(dynamics="markov", contrast="any_time", horizon=horizon)
    model = module.model
    torch.manual_seed(5)
    model.transition_logits_ASS.data = 4 * torch.randn(2, 4, 4)
    model.reward_outputs_S.data = 3 * torch.randn(4)
    model.recognition.layers[-1].weight.data *= 3
    module.average(0)
    transitions, rewards = model.transitions.detach(), model.expected_rewards.detach()

    def value(state, left):
        future = [
            sum(p.item() * value(s, left - 1) for s, p in enumerate(row)) if left else 0.0
            for row in transitions[:, state]
        ]
        return rewards[state].item() + max(future)

    observations = torch.randn(30, 3)
    belief = model.recognise(observations).exp().detach()
    module.start_episode(None)
    by_step = []
    for step in range(horizon + 2):
        # Of `horizon` observations this is number `step` + 1, and one action is left at least.
        left = max(horizon - 1 - step, 1)
        values = torch.tensor([value(state, left - 1) for state in range(4)])
        expected = (transitions @ values @ belief.T).argmax(0)
        found = module.forward_inference({Columns.OBS: observations})[Columns.ACTIONS]
        assert torch.equal(found, expected)
        by_step.append(found)
    assert not torch.equal(by_step[0], by_step[-1])
    assert torch.equal(by_step[-1], by_step[horizon - 2])


# --- Whole iterations ---


def test_an_iteration_collects_learns_and_searches(build):
    algorithm = build(small(exploration_rates=(0.0, 0.5, 1.0)))
    before = weights(algorithm)
    results = algorithm.train()
    after = weights(algorithm)
    assert algorithm.counter.episodes == len(algorithm.replay_buffer.episodes) == 3
    assert not any(torch.equal(before[name], after[name]) for name in after if "weight" in name)
    assert results["policy"]["imagined_return"] > 0
    assert same(after, algorithm.env_runner.module.state_dict())  # which acts next


def test_continuous_actions_are_scaled_to_the_environment_s(build):
    config = small(reward_distribution="gaussian", imagined_return="sum", exploration_rates=(0.5,))
    algorithm = build(config, "Pendulum-v1")
    algorithm.train()
    (episode,) = algorithm.replay_buffer.episodes
    actions = episode.get_actions()
    assert actions.shape == (200, 1)
    assert 0.9 < np.abs(actions).max() <= 1
    pendulum = algorithm.env_runner.env.unwrapped.envs[0].unwrapped
    assert pendulum.last_u == pytest.approx(2 * actions[-1, 0], rel=1e-5)
    assert episode.get_rewards().min() < -1


# --- Mistakes ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 0}, r"^horizon: .* greater than or equal to 1 \(got 0\)"),
        ({"perturbations": 1}, r"^perturbations: .* greater than or equal to 2 \(got 1\)"),
        ({"trajectory_length": 1}, "^trajectory_length: .* greater than or equal to 2"),
        ({"absorbing_steps": -1}, "^absorbing_steps: .* greater than or equal to 0"),
        ({"prediction_steps": 0}, r"^prediction_steps: .* or equal to 1 \(got 0\)"),
        ({"contrast_weight": -1}, r"^contrast_weight: .* or equal to 0 \(got -1\)"),
        ({"reward_weight": -0.5}, "^reward_weight: .* or equal to 0"),
        ({"action_noise": float("nan")}, "^action_noise: input should be a finite number"),
        ({"margin": 0}, "^margin: input should be greater than 0"),
        ({"perturbation_scale": 0}, "^perturbation_scale: input should be greater than 0"),
        ({"averaging": 1}, r"^averaging: input should be less than 1 \(got 1\)"),
        ({"exploration_rates": (0, 2)}, r"^exploration_rates.*less than or equal to 1 \(got 2\)"),
        ({"exploration_rates": ()}, "^episodes_per_iteration: .* greater than or equal to 1"),
        ({"trajectories": 1}, "^trajectories: must be at least 2 with contrast same_time"),
        ({"dynamics": "semi"}, r"^dynamics: input should be 'memory' or 'markov' \(got 'semi'\)"),
        ({"contrast": "info"}, "^contrast: input should be 'same_time', 'any_time', 'information"),
        ({"state_bound": 1}, r"^state_bound: input should be 'none' or 'tanh' \(got 1\)"),
        ({"state_sise": 3}, "^unknown setting 'state_sise'; did you mean 'state_size'"),
        (
            {"imagined_return": "survival", "reward_distribution": "gaussian"},
            "^imagined_return: survival needs reward_distribution bernoulli",
        ),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(md.InputError, match=message):
        small(**settings).validate()


def test_the_number_of_episodes_must_be_that_of_the_exploration_rates():
    with pytest.raises(md.InputError, match=r"^episodes_per_iteration: must be .* 2, got 3"):
        small().training(episodes_per_iteration=3).validate()


def boxes(*shape):
    return gym.spaces.Box(0, 255, shape, np.uint8)


@pytest.mark.parametrize(
    ("settings", "spaces", "message"),
    [
        ({}, {"observations": gym.spaces.Dict(a=VECTORS)}, "observation_space: must be a Box"),
        ({}, {"observations": gym.spaces.Tuple([VECTORS])}, "observation_space: must be a Box"),
        ({}, {"observations": boxes(4, 4, 4, 4)}, "observation_space: must be a Box"),
        ({}, {"actions": gym.spaces.MultiDiscrete([2, 3])}, "action_space: must be Discrete"),
        ({}, {"actions": gym.spaces.Discrete(3, start=1)}, "action_space: .*counted from 0"),
        ({}, {"actions": gym.spaces.Box(-np.inf, 1, (1,))}, "action_space: .*bounded Box"),
        ({}, {"observations": boxes(16, 16, 1)}, "recognition: images of 16x16 pixels are"),
        ({"recognition": "mlp"}, {"observations": boxes(32, 32, 1)}, "recognition: must be c"),
        ({"recognition": "digits"}, {}, "recognition: must be mlp, or auto, got 'digits'"),
        (
            {"dynamics": "markov", "contrast": "any_time"},
            {"actions": gym.spaces.Box(-1, 1, (1,))},
            "dynamics: must be memory where actions are continuous",
        ),
    ],
)
def test_spaces_that_do_not_fit_are_refused(settings, spaces, message):
    with pytest.raises(md.InputError, match=f"^{message}"):
        build_learner(**spaces, **settings)


def test_an_environment_whose_spaces_do_not_fit_is_refused(build):
    with pytest.raises(md.InputError, match=r"^observation_space: must be a Box"):
        build(small(), Shaped, observation_space=gym.spaces.Dict(a=VECTORS))


@pytest.mark.parametrize("reward", [1.5, -16.0])
def test_rewards_that_are_not_probabilities_are_refused(build, reward):
    algorithm = build(small(), Shaped, reward=reward)
    with pytest.raises(md.InputError, match=r"^reward_distribution: bernoulli .*; use gaussian"):
        algorithm.train()


@pytest.mark.slow
def test_a_checkpoint_of_other_settings_is_refused(build, tmp_path):
    algorithm = build(small(), Shaped)
    algorithm.train()
    algorithm.save_to_path(tmp_path)
    for settings in (small(state_size=5), small_markov(), small(transition="gru")):
        other = build(settings, Shaped)
        before = weights(other)
        with pytest.raises(md.InputError, match=r"^checkpoint: must be of .* state_size"):
            other.restore_from_path(str(tmp_path))
        assert same(before, weights(other))
        assert other.counter.episodes == 0
        other.train()  # as if nothing had been


@pytest.mark.slow
def test_it_runs_under_tune_and_goes_on_from_its_checkpoint(build, tmp_path):
    from ray import tune

    config = small().environment(SideOfLight).debugging(seed=3)
    tuner = tune.Tuner(
        Solipsistic,
        param_space=config,
        run_config=tune.RunConfig(
            storage_path=str(tmp_path),
            stop={"training_iteration": 2},
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
            verbose=0,
        ),
    )
    (result,) = tuner.fit()
    assert result.error is None
    assert result.metrics["training_iteration"] == 2
    restored = Algorithm.from_checkpoint(result.checkpoint.path)
    restored.train()
    plain = build(small(), SideOfLight)
    for _ in range(3):
        plain.train()
    assert same(weights(restored), weights(plain))
    restored.stop()
