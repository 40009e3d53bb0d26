"""The environments of the solipsistic family: the rules of the games, and what is seen of them."""

import signal
import subprocess
import sys
import warnings

import gymnasium as gym
import numpy as np
import pygame
import pytest
from gymnasium.utils.env_checker import check_env
from sklearn.datasets import load_digits

import modicum as md
from modicum_algorithms.solipsistic import environments
from modicum_algorithms.solipsistic.environments.cart_pole_drawing import (
    CartPoleDrawing,
    area_weights,
)
from modicum_algorithms.solipsistic.environments.cart_pole_simulations import is_down, next_state
from modicum_algorithms.solipsistic.environments.mnist_game import MnistGame
from modicum_algorithms.solipsistic.environments.pixel_cart_pole import PixelCartPole

LEFT, RIGHT = 0, 1
MINUS, PLUS = 0, 1
CASES = [
    (environments.MNIST_GAME, {"images": "digits", "images_per_digit": 3, "start": "random"}),
    (environments.PIXEL_CART_POLE, {"frames_after_fall": 2, "start": "random"}),
    (environments.PIXEL_CART_POLE, {"drawing": "rendered", "crop": None}),
]


@pytest.mark.parametrize(("name", "given"), CASES)
def test_gymnasium_finds_no_fault(name, given):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gym.make(name, render_mode="rgb_array", **given)
        check_env(env.unwrapped)
    env.close()


def test_registering_again_changes_nothing():
    before = [gym.spec(name) for name in (environments.MNIST_GAME, environments.PIXEL_CART_POLE)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        environments.register_environments()
    after = [gym.spec(name) for name in (environments.MNIST_GAME, environments.PIXEL_CART_POLE)]
    assert all(old is new for old, new in zip(before, after, strict=True))


def test_a_fresh_process_finds_them_and_can_be_stopped_while_it_draws():
    """SDL, once initialised, would swallow SIGTERM; pygame would greet."""
    code = """
import os, signal, time
import gymnasium as gym
env = gym.make("modicum_algorithms.solipsistic.environments:modicum/PixelCartPole-v0")
env.reset(seed=0)
print(env.step(1)[0].shape, flush=True)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(20)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "(64, 64, 3)\n"
    assert done.returncode == -signal.SIGTERM, done.stderr


@pytest.mark.parametrize(
    ("build", "given", "message"),
    [
        (MnistGame, {"horizon": 0}, "horizon: .*1 or more"),
        (MnistGame, {"horizon": 2.5}, "horizon: .*1 or more"),
        (MnistGame, {"start": 10}, "start: .*0, 1, 2.*9, random"),
        (MnistGame, {"start": 4.0}, "start: .*9, random"),
        (MnistGame, {"start": "fixed"}, "start: .*9, random"),
        (MnistGame, {"images": "cifar"}, "images: .*auto, mnist, digits"),
        (MnistGame, {"images_per_digit": 0}, "images_per_digit: .*1 or more"),
        (
            MnistGame,
            {"images": "digits", "images_per_digit": 1000},
            "images_per_digit: .*only 174 .*1 to 174",
        ),
        (MnistGame, {"render_mode": "human"}, "render_mode: .*None, rgb_array"),
        (PixelCartPole, {"horizon": 0}, "horizon: .*1 or more"),
        (PixelCartPole, {"start": "upright"}, "start: .*fixed, random"),
        (PixelCartPole, {"frames_after_fall": -1}, "frames_after_fall: .*0 or more"),
        (PixelCartPole, {"drawing": "fast"}, "drawing: .*direct, rendered"),
        (PixelCartPole, {"render_mode": "human"}, "render_mode: .*None, rgb_array"),
        (PixelCartPole, {"crop": (-1, 300)}, "crop: .*0 to 400"),
        (PixelCartPole, {"crop": (100, 401)}, "crop: .*0 to 400"),
        (PixelCartPole, {"crop": (100, 163)}, "crop: .*64 or more"),
        (PixelCartPole, {"crop": (350, 100)}, "crop: .*64 or more"),
        (PixelCartPole, {"crop": (100, 200, 300)}, "crop: .*first and the last"),
        (PixelCartPole, {"crop": 100}, "crop: .*first and the last"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(build, given, message):
    with pytest.raises(md.InputError, match=message) as caught:
        build(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("build", [lambda: MnistGame(images="digits"), PixelCartPole])
def test_steps_before_a_reset_and_other_actions_are_refused(build):
    env = build()
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    env.reset()
    for action in (2, -1, 0.5):
        with pytest.raises(md.InputError, match=r"action: .*allowed: 0, 1"):
            env.step(action)
    with pytest.raises(md.InputError, match="options: 'state' is unknown"):
        env.reset(options={"state": 1})


# The MNIST game


def played(env, actions):
    """Digits, rewards and ends after each action."""
    digits, rewards, ends = [], [], []
    for action in actions:
        _, reward, terminated, truncated, info = env.step(action)
        digits.append(info["digit"])
        rewards.append(reward)
        ends.append((terminated, truncated))
    return digits, rewards, ends


def test_the_game_as_figure_5_3_has_it():
    env = MnistGame(images="digits")
    _, info = env.reset()
    assert info == {"digit": 4, "reward": 0.0}
    digits, rewards, ends = played(env, [PLUS] * 7 + [MINUS] * 2 + [PLUS] * 5)
    assert digits == [5, 6, 7, 8, 9, 9, 9, 8, 7, 8, 9, 9, 9, 9]
    assert rewards == [0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1]
    assert ends == [(False, False)] * 13 + [(False, True)]
    env.reset()
    assert played(env, [MINUS] * 6 + [PLUS])[0] == [3, 2, 1, 0, 0, 0, 1]


def test_where_the_game_starts():
    env = MnistGame(images="digits", start=9)
    assert env.reset()[1] == {"digit": 9, "reward": 1.0}
    assert env.reset(options={"digit": 7})[1]["digit"] == 7
    for wrong in (10, -1, 2.5, "7"):
        with pytest.raises(md.InputError, match=r"digit: .*0 to 9"):
            env.reset(options={"digit": wrong})
    anywhere = MnistGame(images="digits", start="random")
    first = [anywhere.reset(seed=3)[1]["digit"]] + [anywhere.reset()[1]["digit"] for _ in range(99)]
    again = [anywhere.reset(seed=3)[1]["digit"]] + [anywhere.reset()[1]["digit"] for _ in range(99)]
    assert first == again
    assert set(first) == set(range(10))


def test_the_ten_images_are_scikit_learns_first():
    env = MnistGame(images="digits", render_mode="rgb_array")
    digits = load_digits()
    for digit in range(10):
        image, _ = env.reset(options={"digit": digit})
        assert image.shape == (28, 28, 1)
        assert np.array_equal(env.render(), np.concatenate([image] * 3, axis=2))
        small = image[2:26, 2:26, 0].reshape(8, 3, 8, 3).astype(float)
        assert np.ptp(small, axis=(1, 3)).max() == 0
        original = digits.images[list(digits.target).index(digit)]
        assert np.abs(small[:, 0, :, 0] / 255 - original / 16).max() <= 0.5 / 255
        image[2:26, 2:26] = 0
        assert not image.any()


def test_several_images_of_a_digit():
    env = MnistGame(images="digits", images_per_digit=4, horizon=200)
    images = {env.reset(seed=0)[0].tobytes()}
    expected = MnistGame(images="digits").reset()[0].tobytes()
    for move in range(200):
        image, *_, info = env.step([PLUS, MINUS][move % 2])
        if info["digit"] == 4:
            images.add(image.tobytes())
    assert len(images) == 4
    assert expected in images


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """A folder of MNIST's name; the pixels of an image are its row."""

    def build(shape=(28, 28), labels=True):
        monkeypatch.setenv("MODICUM_DATA", str(tmp_path))
        monkeypatch.setenv("MODICUM_CACHE", str(tmp_path / "cache"))
        (tmp_path / "mnist").mkdir()
        images = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None, None], (40, *shape))
        arrays = {"images": images}
        if labels:
            arrays["labels"] = np.arange(40)[::-1] % 10
        for split in ("train", "test"):
            np.savez(tmp_path / "mnist" / f"{split}.npz", **arrays)

    return build


def test_mnist_goes_first_if_it_is_there(mnist):
    mnist()
    env = MnistGame()
    seen = [int(env.reset(options={"digit": digit})[0].mean()) for digit in range(10)]
    assert seen == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    with pytest.raises(md.InputError, match=r"images_per_digit: .*only 4"):
        MnistGame(images="mnist", images_per_digit=5)
    digits = MnistGame(images="digits").reset(options={"digit": 0})[0]
    assert digits.max() > 40


def test_mnist_that_is_not_there_or_is_something_else(mnist, tmp_path, monkeypatch):
    monkeypatch.setenv("MODICUM_DATA", str(tmp_path))
    with pytest.raises(md.InputError, match="images: no 'mnist'"):
        MnistGame(images="mnist")
    assert MnistGame(images="auto").reset()[0].max() > 40
    mnist(labels=False)
    with pytest.raises(md.InputError, match=r"images: .*28 x 28 with their labels"):
        MnistGame(images="mnist")


# CartPole: its movement


def test_movement_equals_gymnasiums_to_the_bit():
    generator = np.random.default_rng(0)
    cart_pole = gym.make("CartPole-v1").unwrapped
    for episode in range(20):
        cart_pole.reset(seed=episode)
        state = generator.uniform(-1, 1, 4) * (3, 4, 3, 6)
        cart_pole.state = state
        for action in generator.integers(0, 2, 100):
            cart_pole.steps_beyond_terminated = None
            _, _, terminated, _, _ = cart_pole.step(action)
            state = next_state(state, int(action))
            assert state.tobytes() == cart_pole.state.tobytes()
            assert is_down(state) == terminated


def falling(action):
    """Steps of gymnasium's CartPole from the fixed start until an action makes it fall."""
    cart_pole = gym.make("CartPole-v1").unwrapped
    cart_pole.reset(options={"low": 0.0, "high": 0.0})
    steps = 1
    while not cart_pole.step(action)[2]:
        steps += 1
    return steps


def rewards_and_end(env, action):
    """Rewards of an episode, that of the first state first; and how it ended."""
    _, info = env.reset()
    assert not info["fallen"]
    rewards = [info["reward"]]
    terminated = truncated = False
    while not (terminated or truncated):
        _, reward, terminated, truncated, info = env.step(action)
        rewards.append(reward)
        assert info["fallen"] == (reward == 0)
    return rewards, (terminated, truncated)


@pytest.mark.parametrize("action", [LEFT, RIGHT])
def test_rewards_and_ends_around_the_fall(action):
    fall = falling(action)
    upright = [1.0] * fall  # the first state's, and those of the actions before the fall
    for after in (0, 1, 7):
        env = PixelCartPole(frames_after_fall=after)
        assert rewards_and_end(env, action) == (upright + [0.0] * (after + 1), (True, False))
    # The fall is the last action that counts, or the first that does not.
    env = PixelCartPole(frames_after_fall=3, horizon=fall)
    assert rewards_and_end(env, action) == (upright + [0.0] * 4, (True, False))
    env = PixelCartPole(frames_after_fall=3, horizon=fall - 1)
    assert rewards_and_end(env, action) == (upright, (False, True))


def test_what_has_fallen_stays_fallen():
    env = PixelCartPole(frames_after_fall=100)
    env.reset()
    info = {"fallen": False, "state": np.zeros(4)}
    while not info["fallen"]:
        # The pole is let lean to the right, but slowly.
        *_, info = env.step(RIGHT if info["state"][3] > 0.3 else LEFT)
    # Pushed under the pole, the cart sets it upright again.
    while is_down(info["state"]):
        _, reward, terminated, _, info = env.step(RIGHT)
        assert not terminated
    assert (reward, info["fallen"]) == (0.0, True)
    assert env.reset()[1]["reward"] == 1.0


def test_starts():
    fixed = PixelCartPole()
    assert fixed.reset(seed=1)[1]["state"].tolist() == [0, 0, 0, 0]
    drawn = PixelCartPole(start="random")
    cart_pole = gym.make("CartPole-v1").unwrapped
    for seed in (5, None, None):
        _, info = drawn.reset(seed=seed)
        cart_pole.reset(seed=seed)
        assert info["state"].tobytes() == cart_pole.state.tobytes()


# CartPole: its frames


def test_area_weights_by_hand():
    # Three pixels in two averages: each has one whole and half of the middle one.
    assert area_weights(3, 2) == pytest.approx(np.array([[2, 1, 0], [0, 1, 2]]) / 3)
    assert area_weights(4, 4) == pytest.approx(np.eye(4))
    assert area_weights(600, 64).sum(axis=1) == pytest.approx(np.ones(64))
    assert area_weights(600, 64).sum(axis=0) == pytest.approx(np.full(600, 64 / 600), rel=1e-5)


def test_a_frame_by_hand():
    """The track alone: row 299 of 400 from the top is black, row 199 of those kept."""
    away = np.array([9.0, 0, 0, 0])
    frame = CartPoleDrawing((100, 350)).frame(away).astype(int)
    height = 250 / 64
    expected = np.full((64, 64), 255)
    # A part of the row lies in the 51st average, which ends at 199.22, and the rest in the next.
    inside = 51 * height - 199
    assert 0 < inside < 1
    expected[50] = round(255 * (1 - inside / height))
    expected[51] = round(255 * (1 - (1 - inside) / height))
    assert np.array_equal(frame, expected)


def states(count, seed):
    """Near the start and far from it: fallen poles, carts half and wholly outside."""
    generator = np.random.default_rng(seed)
    near = generator.uniform(-1, 1, (count, 4)) * (2.4, 1, 0.4, 1)
    far = generator.uniform(-1, 1, (count, 4)) * (3.4, 1, 2 * np.pi, 1)
    return np.where(np.arange(count)[:, None] % 2, far, near)


def test_pictures_equal_gymnasiums_to_the_bit():
    cart_pole = gym.make("CartPole-v1", render_mode="rgb_array").unwrapped
    drawing = CartPoleDrawing((100, 350))
    for state in states(100, seed=0):
        cart_pole.state = state
        drawing.frame(state[[0, 1, 3, 2]])  # What was drawn before leaves no trace.
        assert np.array_equal(drawing.picture(state), cart_pole.render())


def wrappers(wrapper):
    """Those that transform observations, the outermost first."""
    while isinstance(wrapper, gym.wrappers.TransformObservation):
        yield wrapper
        wrapper = wrapper.env


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        ((100, 350), 60),
        (None, 20),
        ((100, 356), 20),
        ((250, 330), 20),
        pytest.param((100, 350), 500, marks=pytest.mark.slow),
    ],
)
def test_frames_equal_those_of_the_wrappers(rows, count):
    """But for averages so near to half-way that the last bits of float32 decide."""
    # Only so are frames of any state to be had from the wrappers.
    simulation = PixelCartPole(drawing="rendered", crop=rows)._simulation
    simulation.reset(np.random.default_rng(0))
    drawing = CartPoleDrawing(rows or (0, 400))
    found = np.empty((count, 64, 64), np.uint8)
    for row, state in enumerate(states(count, seed=1)):
        simulation._cart_pole.state = state
        small, grey, kept, picture = wrappers(simulation._seen.env)
        expected = small.func(grey.func(kept.func(picture.func(None))))
        found[row] = np.abs(drawing.frame(state).astype(int) - expected)
    assert found.max() <= 1
    assert found.mean() < 1e-4


def test_an_episode_is_the_same_drawn_directly_and_rendered():
    given = {"start": "random", "frames_after_fall": 5, "render_mode": "rgb_array"}
    direct, rendered = (PixelCartPole(drawing=name, **given) for name in ("direct", "rendered"))
    actions = np.random.default_rng(0)
    for seed in (0, None):
        seen, info = direct.reset(seed=seed)
        expected, expected_info = rendered.reset(seed=seed)
        frames = [seen[:, :, 0]] * 3
        ended = False
        while not ended:
            assert seen.dtype == expected.dtype == np.uint8
            assert np.abs(seen.astype(int) - expected).max() <= 1
            # x1 = f1, f1, f1; x2 = f2, f1, f1; x3 = f3, f2, f1
            assert np.array_equal(seen, np.stack(frames[:-4:-1], axis=-1))
            assert info["state"].tobytes() == expected_info["state"].tobytes()
            action = actions.integers(0, 2)
            seen, *outcome, info = direct.step(action)
            expected, *expected_outcome, expected_info = rendered.step(action)
            assert outcome == expected_outcome
            frames.append(seen[:, :, 0])
            ended = outcome[1]
        assert len(frames) > 10
        assert np.array_equal(direct.render(), rendered.render())
    rendered.close()


def test_drawing_goes_on_where_a_closed_renderer_has_ended_pygame():
    direct, rendered = PixelCartPole(), PixelCartPole(drawing="rendered")
    first, _ = direct.reset()
    rendered.reset()
    assert pygame.get_init()
    rendered.close()
    assert not pygame.get_init()
    direct.step(RIGHT)
    assert np.array_equal(direct.reset()[0], first)


def test_observations_are_the_receivers_own():
    env = PixelCartPole()
    first, info = env.reset()
    kept = first.copy()
    first[:] = 0
    info["state"][:] = 9
    second, *_ = env.step(RIGHT)
    assert np.array_equal(second[:, :, 1], kept[:, :, 0])
    game = MnistGame(images="digits")
    image, _ = game.reset()
    kept = image.copy()
    image[:] = 0
    assert np.array_equal(game.reset()[0], kept)
