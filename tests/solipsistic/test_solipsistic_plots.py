"""Pictures of what networks have learned: every number where it belongs."""

import gymnasium as gym
import numpy as np
import pytest
import torch

import modicum as md
from modicum_algorithms.solipsistic import environments
from modicum_algorithms.solipsistic.config import SolipsisticOptions
from modicum_algorithms.solipsistic.evaluation import digit_observations
from modicum_algorithms.solipsistic.inspection import (
    RIGHT,
    DigitsInMarkovModel,
    Projection,
    digits_in_markov_model,
    falls,
    first_layer_activations,
    networks,
    projected,
    scaled_rows,
    scripted_observations,
)
from modicum_algorithms.solipsistic.methods.ppo import ActorCriticModule
from modicum_algorithms.solipsistic.methods.solipsistic.models import MarkovModel
from modicum_algorithms.solipsistic.networks import ActionShape, ObservationShape, Recognition
from modicum_algorithms.solipsistic.plots import (
    activations_figure,
    draw_activations,
    markov_model_figure,
    trajectories_figure,
)


def image(axes):
    (drawn,) = axes.images
    return np.asarray(drawn.get_array())


@pytest.fixture
def solved_game():
    """A Markov model that knows the MNIST game: observations are one-hot vectors of the digits, a
    digit's state is 9 minus the digit.
    """
    model = MarkovModel(
        ObservationShape(None, (10,), 1.0), ActionShape(2, 2), SolipsisticOptions(state_size=10)
    )
    sure = 1e3
    model.recognition = torch.nn.Sequential(torch.nn.Linear(10, 10, bias=False))
    with torch.no_grad():
        model.recognition[0].weight.copy_(sure * torch.eye(10).flip(0))
        model.transition_logits_ASS.zero_()
        for digit in range(10):
            for action, move in ((0, -1), (1, 1)):
                after = min(max(digit + move, 0), 9)
                model.transition_logits_ASS[action, 9 - digit, 9 - after] = sure
        model.reward_outputs_S.fill_(-sure)
        model.reward_outputs_S[0] = sure
    return model.eval()


def test_values_of_a_solved_game_are_the_rewards_within_reach(solved_game):
    """With T steps in all, digit d at time t sees 9 at times t + 9 - d … T, one reward each."""
    horizon = 10
    found = digits_in_markov_model(solved_game, np.eye(10, dtype=np.float32), horizon)
    np.testing.assert_allclose(found.states_NS, np.eye(10)[::-1], atol=1e-6)
    np.testing.assert_allclose(found.rewards_N, np.eye(10)[9], atol=1e-6)
    expected = [
        [max(0, horizon - t - (9 - digit) + 1) for digit in range(10)]
        for t in range(1, horizon + 1)
    ]
    np.testing.assert_allclose(found.values_TN, expected, atol=1e-4)


def test_rows_are_scaled_each_for_itself():
    scaled = scaled_rows(np.array([[1.0, 3.0, 2.0], [5.0, 5.0, 5.0]]))
    np.testing.assert_array_equal(scaled, [[0, 1, 0.5], [0, 0, 0]])


def test_the_markov_models_picture_has_digits_across():
    """Three images, two states: the heat maps show states and steps going down."""
    digits = DigitsInMarkovModel(
        states_NS=np.array([[1.0, 0.0], [0.25, 0.75], [0.0, 1.0]]),
        rewards_N=np.array([0.0, 0.5, 1.0]),
        values_TN=np.array([[1.0, 2.0, 3.0], [0.0, 4.0, 1.0]]),
    )
    states, rewards, values, *_ = markov_model_figure(digits).axes
    np.testing.assert_array_equal(image(states), [[1, 0.25, 0], [0, 0.75, 1]])
    assert [bar.get_height() for bar in rewards.patches] == [0.0, 0.5, 1.0]
    np.testing.assert_array_equal(image(values), [[0, 0.5, 1], [0, 1, 0.25]])
    assert [label.get_text() for label in values.get_yticklabels()] == ["1", "2"]


def test_digits_are_observed_in_order():
    observations = digit_observations({"images": "digits"})
    game = gym.make(environments.MNIST_GAME, images="digits", start=7)
    np.testing.assert_array_equal(observations[7], game.reset()[0])
    assert len(np.unique(observations.reshape(10, -1), axis=0)) == 10


def test_activations_are_the_sigmoid_of_the_first_convolution():
    """One pixel of 255, 1 after scaling, and a filter whose middle weighs 2 with a bias of -1."""
    network = Recognition(ObservationShape(3, (64, 64), 1 / 255), 4, "convolutional").eval()
    convolution = network.layers[0]
    with torch.no_grad():
        convolution.weight.zero_()
        convolution.weight[5, 2, 1, 1] = 2  # of the third channel
        convolution.bias.fill_(-1)
    observations = np.zeros((2, 64, 64, 3), np.uint8)
    observations[1, 10, 20, 2] = 255
    observations[1, 30, 30, 0] = 255
    activations = first_layer_activations(network, observations)
    assert activations.shape == (2, 8, 62, 62)
    dark, light = 1 / (1 + np.e), 1 / (1 + 1 / np.e)
    expected = np.full_like(activations, dark)
    expected[1, 5, 9, 19] = light
    np.testing.assert_allclose(activations, expected, rtol=1e-6)


def test_networks_for_vectors_have_no_activation_maps():
    network = Recognition(ObservationShape(None, (4,), 1.0), 2, "mlp")
    with pytest.raises(md.InputError, match="only networks for images"):
        first_layer_activations(network, np.zeros((1, 4)))


def test_both_networks_of_ppo_are_found():
    module = ActorCriticModule(
        observation_space=gym.spaces.Box(0, 255, (64, 64, 3), np.uint8),
        action_space=gym.spaces.Discrete(2),
        model_config={"recognition": "auto"},
    )
    found = networks(module)
    assert found == {"policy": module.policy_network, "value": module.value_network}


def test_activations_stand_beside_their_frames():
    """Two rows of two frames and three filters, each filter's grey from its least to its most."""
    observations = np.arange(2 * 4 * 4 * 2, dtype=np.uint8).reshape(2, 4, 4, 2)
    activations = np.linspace(0.2, 0.8, 2 * 3 * 2 * 2).reshape(2, 3, 2, 2)
    figure = activations_figure(observations, activations, [1, 15], title="both")
    frames, maps = figure.axes[:4], figure.axes[4:]
    assert len(maps) == 6
    np.testing.assert_array_equal(image(frames[3]), observations[1, :, :, 1])
    np.testing.assert_array_equal(image(maps[5]), activations[1, 2])
    for filter_number in range(3):
        scales = {maps[row * 3 + filter_number].images[0].get_clim() for row in (0, 1)}
        values = activations[:, filter_number]
        assert scales == {(values.min(), values.max())}
    assert [frames[0].get_ylabel(), frames[2].get_ylabel()] == ["t = 1", "t = 15"]


def test_a_script_is_played_beyond_the_fall_whatever_the_options_say():
    """The cart goes to the right, and the pole hangs where it would never be seen standing."""
    options = {"start": "random", "frames_after_fall": 0, "horizon": 3, "crop": None}
    observations = scripted_observations(options, [RIGHT] * 25)
    assert observations.shape == (26, 64, 64, 3)
    upright = scripted_observations(options, [])
    np.testing.assert_array_equal(observations[:1], upright)
    np.testing.assert_array_equal(observations[20, ..., 1], observations[19, ..., 0])
    cart_row = 48  # of a frame with all rows, through the cart's middle
    columns = [int(np.argmin(frame[cart_row, :, 0])) for frame in observations[[0, 10, 25]]]
    assert columns == sorted(set(columns))


def test_poles_fall_as_the_scripts_say():
    """Gymnasium's angle is negative to the left; the first two scripts stay close throughout."""
    angles = []
    for name, script in falls(49).items():
        cart_pole = gym.make(environments.PIXEL_CART_POLE, frames_after_fall=50)
        cart_pole.reset(seed=0)
        states = [cart_pole.step(np.int64(action))[4]["state"] for action in script]
        angles.append([state[2] for state in states])
        assert np.sign(states[-1][2]) == (-1 if "left" in name else 1)
    first, second, third = np.array(angles)
    assert 0 < np.abs(first - second).max() < 0.2 < np.abs(first - third).max()


def test_the_projection_keeps_the_distances_of_states_in_a_plane():
    """States in a plane of four dimensions: PCA is a rotation, with shares of the variance."""
    generator = np.random.default_rng(0)
    plane, _ = np.linalg.qr(generator.normal(size=(4, 2)))
    flat = generator.normal(size=(12, 2)) * [3, 1]
    states = flat @ plane.T + 5
    found = projected({"first": states[:7], "second": states[7:]})
    points = np.concatenate([found.points["first"], found.points["second"]])

    def distances(rows):
        return np.linalg.norm(rows[:, None] - rows[None], axis=-1)

    np.testing.assert_allclose(distances(points), distances(flat), atol=1e-9)
    variances = points.var(0)
    np.testing.assert_allclose(found.explained, variances / variances.sum(), atol=1e-9)
    assert found.explained[0] > found.explained[1]


def test_trajectories_are_drawn_at_their_times():
    frames = {"a": np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2)}
    frames["b"] = 100 + frames["a"]
    points = {name: np.random.default_rng(0).normal(size=(5, 2)) for name in frames}
    figure = trajectories_figure(frames, [1, 5], Projection(points, (0.7, 0.2)))
    *strips, plane = figure.axes
    np.testing.assert_array_equal(image(strips[1]), frames["a"][4])
    np.testing.assert_array_equal(image(strips[2]), frames["b"][0])
    line = next(line for line in plane.lines if line.get_label() == "b")
    np.testing.assert_array_equal(line.get_xydata(), points["b"])
    assert "70%" in plane.get_xlabel()


def test_the_cart_is_drawn_at_the_steps_of_figure_5_6():
    network = Recognition(ObservationShape(3, (64, 64), 1 / 255), 4, "convolutional").eval()
    figure = draw_activations(network, {})
    assert len(figure.axes) == 4 * (3 + 8)
    pushed = scripted_observations({}, [RIGHT] * 14)
    for row, step in enumerate((0, 4, 9, 14)):
        np.testing.assert_array_equal(image(figure.axes[3 * row]), pushed[step, :, :, 0])
