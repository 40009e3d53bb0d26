"""Chapter 5's and appendix C's equations against brute force, closed forms and sums by hand."""

import itertools
import math

import pytest
import torch
from torch.distributions import Categorical, MultivariateNormal, kl_divergence

from modicum_algorithms.solipsistic.config import SolipsisticOptions
from modicum_algorithms.solipsistic.methods.solipsistic import losses
from modicum_algorithms.solipsistic.methods.solipsistic.models import MarkovModel, MemoryModel
from modicum_algorithms.solipsistic.methods.solipsistic.policy import (
    PolicyNetwork,
    action_values,
    fitness_shaping,
    gradient,
    imagined_returns,
    maximise,
    perturbations,
    state_values,
)
from modicum_algorithms.solipsistic.networks import ActionShape, ObservationShape
from modicum_algorithms.solipsistic.rllib_settings import SolipsisticAlgorithmOptions

TWO_ACTIONS = ActionShape(2, 2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# --- Dynamic programming ---


def random_problem(states, actions, seed):
    draw = generator(seed)
    transitions = torch.rand(actions, states, states, generator=draw, dtype=torch.float64)
    return transitions / transitions.sum(-1, keepdim=True), torch.rand(
        states, generator=draw, dtype=torch.float64
    )


def best_value(transitions, rewards, state, left):
    """The best expected sum of rewards by trying every action in every state that can follow."""
    if left == 0:
        return rewards[state].item()
    following = [
        sum(
            probability.item() * best_value(transitions, rewards, other, left - 1)
            for other, probability in enumerate(transitions[action, state])
        )
        for action in range(len(transitions))
    ]
    return rewards[state].item() + max(following)


@pytest.mark.parametrize("seed", range(3))
def test_values_are_those_of_trying_every_action_in_every_state(seed):
    transitions, rewards = random_problem(3, 2, seed)
    values = state_values(transitions, rewards, 5)
    assert values.shape == (5, 3)
    for left, state in itertools.product(range(5), range(3)):
        assert values[left, state].item() == pytest.approx(
            best_value(transitions, rewards, state, left), abs=1e-12
        )


def test_the_first_action_is_that_of_the_best_sequence_where_all_is_certain():
    """A corridor of 5 states, one step left or right, reward in the last: brute force over all
    action sequences (equation 5.7).
    """
    states, horizon = 5, 6
    transitions = torch.zeros(2, states, states)
    for state in range(states):
        transitions[0, state, max(0, state - 1)] = 1
        transitions[1, state, min(states - 1, state + 1)] = 1
    rewards = torch.tensor([0.3, 0.0, 0.0, 0.0, 1.0])

    def total(state, actions):
        collected = 0.0
        for action in actions:
            state = int(transitions[action, state].argmax())
            collected += rewards[state].item()
        return collected

    values = state_values(transitions, rewards, horizon - 1)
    for state in range(states):
        sequences = list(itertools.product(range(2), repeat=horizon - 1))
        best = max(sequences, key=lambda actions, start=state: total(start, actions))
        belief = torch.eye(states)[state]
        found = action_values(belief, transitions, values[-1])
        assert found.max().item() == pytest.approx(total(state, best))
        if len({a[0] for a in sequences if total(state, a) == total(state, best)}) == 1:
            assert int(found.argmax()) == best[0]
    # Near the small reward it is still best to walk to the large one when there is time.
    assert int(action_values(torch.eye(5)[1], transitions, values[-1]).argmax()) == 1
    assert int(action_values(torch.eye(5)[1], transitions, values[1]).argmax()) == 0


def test_a_belief_weighs_the_values_of_its_states():
    """Two states, deterministic: action 0 leads to state 0, action 1 to state 1; V = (1, 3)."""
    transitions = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.9, 0.1]]])
    found = action_values(torch.tensor([0.25, 0.75]), transitions, torch.tensor([1.0, 3.0]))
    # Action 0: 1. Action 1: 0.25 * 3 + 0.75 * (0.9 * 1 + 0.1 * 3) = 0.75 + 0.9.
    assert found.tolist() == pytest.approx([1.0, 1.65])


# --- Divergences and the contrast ---


def test_the_spread_divergence_is_the_kl_between_the_blurred_points():
    draw = torch.randn(2, 7, 4, generator=generator(), dtype=torch.float64)
    covariance = 0.5 * torch.eye(4, dtype=torch.float64)
    expected = kl_divergence(
        MultivariateNormal(draw[0], covariance), MultivariateNormal(draw[1], covariance)
    )
    torch.testing.assert_close(losses.spread_divergence(*draw), expected)
    assert losses.spread_divergence(
        torch.tensor([[1.0, 2.0]]), torch.tensor([[4.0, -2.0]])
    ).item() == pytest.approx(25.0)


def test_the_categorical_divergence_is_that_of_torch_and_is_not_symmetric():
    logs = torch.randn(2, 6, 5, generator=generator(1), dtype=torch.float64).log_softmax(-1)
    expected = kl_divergence(Categorical(logits=logs[0]), Categorical(logits=logs[1]))
    found = losses.categorical_divergence(*logs)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, losses.categorical_divergence(logs[1], logs[0]))


def test_every_pair_is_the_divergence_of_that_pair():
    states = torch.randn(2, 4, 3, generator=generator(2), dtype=torch.float64)
    logs = states.log_softmax(-1)
    spread = losses.pairwise_spread_divergence(*states)
    categorical = losses.pairwise_categorical_divergence(*logs)
    for row, column in itertools.product(range(4), range(4)):
        torch.testing.assert_close(
            spread[row, column], losses.spread_divergence(states[0, row], states[1, column])
        )
        torch.testing.assert_close(
            categorical[row, column],
            losses.categorical_divergence(logs[0, row], logs[1, column]),
        )


def test_the_contrast_by_hand():
    """Margin 5: divergences 0, 2, 5 and 9 cost 5, 3, 0 and 0."""
    assert losses.contrast(torch.tensor([0.0, 2.0, 5.0, 9.0]), 5.0).item() == pytest.approx(2.0)
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]])
    assert losses.off_diagonal(values).tolist() == [2.0, 3.0, 4.0, 6.0, 7.0, 8.0]


def test_the_bottleneck_is_minus_the_log_share_of_the_own_observation():
    """−log p(s|x_t) + log Σ p(s|x_i), with Gaussian densities of variance 1/2, by their sum."""
    predicted, recognised = torch.randn(2, 5, 3, generator=generator(3), dtype=torch.float64)
    covariance = 0.5 * torch.eye(3, dtype=torch.float64)
    logs = MultivariateNormal(recognised[None], covariance).log_prob(predicted[:, None])
    expected = -(logs.diagonal() - logs.exp().sum(1).log()).mean()
    found = losses.contrastive_bottleneck(losses.pairwise_spread_divergence(predicted, recognised))
    torch.testing.assert_close(found, expected)


def test_reward_losses_are_minus_log_probabilities():
    logits = torch.tensor([0.0, 2.0, -1.0])
    rewards = torch.tensor([1.0, 0.0, 1.0])
    by_hand = [math.log(2), math.log(1 + math.exp(2)), math.log(1 + math.exp(1))]
    assert losses.bernoulli_reward_loss(logits, rewards).tolist() == pytest.approx(by_hand)
    assert losses.gaussian_reward_loss(logits, rewards).tolist() == pytest.approx([0.5, 2.0, 2.0])


# --- Models ---


def build(model, action=TWO_ACTIONS, **settings):
    return model(
        ObservationShape(None, (3,), 1.0), action, SolipsisticOptions(state_size=4, **settings)
    )


def test_the_markov_model_sums_over_the_states_that_were_possible():
    """Equation 5.1 by a loop over states."""
    torch.manual_seed(0)
    model = build(MarkovModel).double()
    recognised = torch.randn(2, 3, 4, dtype=torch.float64).log_softmax(-1)
    actions = torch.tensor([[0, 1], [1, 1]])
    encoded = TWO_ACTIONS.encode(actions).double()
    (predicted,) = model.predictions(recognised, encoded, None)
    for row, time in itertools.product(range(2), range(2)):
        by_loop = sum(
            recognised[row, time, state].exp() * model.transitions[actions[row, time], state]
            for state in range(4)
        )
        torch.testing.assert_close(predicted[row, time].exp(), by_loop)
    # A Bernoulli mixture is the Bernoulli of the mean probability.
    belief = recognised[0, 0].exp()
    torch.testing.assert_close(
        model.expected_reward(recognised[0, 0]), belief @ model.expected_rewards
    )


def test_the_memory_model_predicts_without_looking_again():
    """Predictions depend on the first recognised state and on the actions alone."""
    torch.manual_seed(0)
    model = build(MemoryModel)
    recognised, actions = torch.randn(2, 5, 4), TWO_ACTIONS.encode(torch.randint(2, (2, 4)))
    (predicted,) = model.predictions(recognised, actions, None)
    changed = recognised.clone()
    changed[:, 1:] += 1
    torch.testing.assert_close(model.predictions(changed, actions, None)[0], predicted)
    state = recognised[:, 0]
    for time in range(4):
        state = model.step(state, actions[:, time])
        torch.testing.assert_close(predicted[:, time], state)
    changed[:, 0] += 1
    assert not torch.allclose(model.predictions(changed, actions, None)[0], predicted)


@pytest.mark.parametrize("transition", ["gru", "residual"])
def test_predictions_from_every_state_are_those_of_a_loop(transition):
    """The k-th tensor holds at its place t the prediction of state t + k + 1 from state t."""
    torch.manual_seed(0)
    model = build(MemoryModel, transition=transition)
    recognised, actions = torch.randn(2, 5, 4), TWO_ACTIONS.encode(torch.randint(2, (2, 4)))
    found = model.predictions(recognised, actions, 3)
    assert [group.shape for group in found] == [(2, 4, 4), (2, 3, 4), (2, 2, 4)]
    for start in range(4):
        state = recognised[:, start]
        for ahead in range(min(3, 4 - start)):
            state = model.step(state, actions[:, start + ahead])
            torch.testing.assert_close(found[ahead][:, start], state)
    # No further than the trajectory goes; and from the first state it is the same prediction.
    assert len(model.predictions(recognised, actions, 9)) == 4
    (open_loop,) = model.predictions(recognised, actions, None)
    torch.testing.assert_close(found[2][:, 0], open_loop[:, 2])


# --- Variational optimisation ---


def test_the_gradient_is_that_of_the_expectation_on_a_quadratic():
    """For E(w) = −||w − c||²/2, U = E[−E(w)] has the gradient μ − c, whatever σ."""
    size, number, deviation = 3, 400_000, 0.7
    mean, centre = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.0, 1.0, 0.5])
    noise = perturbations(number, size, generator(), antithetic=True, device="cpu")
    objectives = -((mean + deviation * noise - centre).square().sum(1)) / 2
    samples = -(objectives[:, None] * noise) / deviation
    found = gradient(noise, objectives / number, deviation)
    error = samples.std(0) / math.sqrt(number)
    torch.testing.assert_close(found, samples.mean(0), rtol=1e-3, atol=1e-3)
    assert ((found - (mean - centre)).abs() < 4 * error).all()
    assert error.max() < 0.02


def test_fitness_shaping_by_hand():
    """J = 4: max(0, log 3 − log k) for k = 1 to 4, over their sum, less 1/4."""
    raw = [math.log(3), math.log(3 / 2), 0.0, 0.0]
    by_place = [value / sum(raw) - 0.25 for value in raw]
    found = fitness_shaping(torch.tensor([10.0, -3.0, 99.0, 0.5]))
    expected = [by_place[1], by_place[3], by_place[0], by_place[2]]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    assert found.sum().item() == pytest.approx(0, abs=1e-6)


def test_fitness_shaping_looks_at_the_order_alone_and_shares_ties():
    objectives = torch.randn(9, generator=generator(4))
    torch.testing.assert_close(
        fitness_shaping(objectives), fitness_shaping((3 * objectives + 7).exp())
    )
    assert fitness_shaping(torch.ones(6)).abs().max().item() < 1e-7
    tied = fitness_shaping(torch.tensor([1.0, 5.0, 5.0, 0.0]))
    assert tied[1] == tied[2]
    assert tied.sum().item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("number", [2, 3, 10])
def test_antithetic_perturbations_come_in_pairs(number):
    noise = perturbations(number, 4, generator(), antithetic=True, device="cpu")
    assert noise.shape == (number, 4)
    half = (number + 1) // 2
    torch.testing.assert_close(noise[half:], -noise[: number - half])


def test_variational_optimisation_finds_the_top_of_a_hill():
    centre = torch.tensor([0.4, -0.3, 0.2, 0.0, 0.1])
    options = SolipsisticAlgorithmOptions(
        episodes_per_iteration=5,
        policy_iterations=150,
        perturbations=40,
        policy_learning_rate=2e-2,
    )
    *_, (found, objectives) = maximise(
        lambda weights: -(weights - centre).square().sum(1), torch.zeros(5), options, generator()
    )
    assert objectives.shape == (40,)
    assert (found - centre).abs().max() < 0.08


# --- Imagination ---


@pytest.mark.parametrize("kind", ["sum", "survival"])
@pytest.mark.parametrize("action", [TWO_ACTIONS, ActionShape(3, 3), ActionShape(None, 2)])
def test_batched_roll_outs_are_those_of_a_loop_over_policies_starts_and_steps(kind, action):
    torch.manual_seed(1)
    model = build(MemoryModel, action)
    policy = PolicyNetwork(4, action, hidden_units=6)
    # Weights so large that the policies are all but certain of their actions.
    weights = 40 * torch.randn(3, policy.size, generator=generator(5))
    starts = torch.randn(2, 4, generator=generator(6))
    with torch.no_grad():
        found = imagined_returns(
            policy,
            weights,
            starts,
            transition=model.step,
            reward=model.expected_reward,
            horizon=7,
            kind=kind,
            generator=generator(7),
        )
        for row, column in itertools.product(range(3), range(2)):
            state, total, alive = starts[column], 0.0, 1.0
            for _ in range(7):
                reward = model.expected_reward(state).item()
                alive *= reward
                total += alive if kind == "survival" else reward
                chosen = torch_policy(policy, weights[row], state, action)
                state = model.step(state[None], chosen[None])[0]
            assert found[row, column].item() == pytest.approx(total, rel=1e-4)


def torch_policy(policy, weights, state, action):
    """The same policy built of torch's layers, taking its likeliest action."""
    layers, start = [], 0
    for inputs, outputs in policy.shapes:
        layer = torch.nn.Linear(inputs, outputs)
        end = start + inputs * outputs
        layer.weight.data = weights[start:end].view(inputs, outputs).T
        layer.bias.data = weights[end : end + outputs]
        layers += [layer, torch.nn.ReLU()]
        start = end + outputs
    outputs = torch.nn.Sequential(*layers[:-1])(state)
    if action.choices is None:
        return torch.tanh(outputs)
    if action.choices == 2:
        return torch.eye(2)[int(outputs[0] > 0)]
    return torch.eye(action.choices)[int(outputs.argmax())]


def test_sampled_actions_have_the_policy_s_probabilities():
    policy = PolicyNetwork(1, ActionShape(3, 3), hidden_units=5)
    logits = torch.tensor([0.3, -1.0, 1.2])
    drawn = policy.sample(logits.expand(100_000, 3), generator()).mean(0)
    torch.testing.assert_close(drawn, logits.softmax(0), rtol=0, atol=0.006)
    two = PolicyNetwork(1, TWO_ACTIONS, hidden_units=5)
    drawn = two.sample(torch.full((100_000, 1), 0.8), generator()).mean(0)
    assert drawn[1].item() == pytest.approx(1 / (1 + math.exp(-0.8)), abs=0.006)
