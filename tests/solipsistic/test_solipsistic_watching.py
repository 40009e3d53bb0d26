"""`modicum watch`: the agent that was trained, its episodes, and films that can be read."""

import json
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint

import cv2
import numpy as np
import pytest
import torch
import typer
from PIL import Image, ImageSequence

import modicum as md
from modicum.cli import main as cli
from modicum_algorithms import solipsistic
from modicum_algorithms.solipsistic.algorithm import SolipsisticConfig
from modicum_algorithms.solipsistic.building import build_algorithm
from modicum_algorithms.solipsistic.checkpoints import load_agent, save_agent
from modicum_algorithms.solipsistic.config import SolipsisticSettings
from modicum_algorithms.solipsistic.environments import MNIST_GAME, PIXEL_CART_POLE
from modicum_algorithms.solipsistic.episodic.runner import EpisodeRequest
from modicum_algorithms.solipsistic.films import Film, observation_picture
from modicum_algorithms.solipsistic.methods.dqn import EpisodicDQNConfig
from modicum_algorithms.solipsistic.watching import play


def frames_of(path):
    """Frames of a GIF with their durations in milliseconds."""
    with Image.open(path) as film:
        return [
            (np.asarray(frame.convert("RGB")), frame.info["duration"])
            for frame in ImageSequence.Iterator(film)
        ]


@pytest.fixture(scope="module")
def trained(ray_cluster, tmp_path_factory):
    """An algorithm, and the folder of a trial's checkpoint of it."""
    folder = tmp_path_factory.mktemp("trained")
    config = EpisodicDQNConfig().environment(PIXEL_CART_POLE, env_config={"start": "random"})
    algorithm = config.debugging(seed=5).build_algo()
    module = algorithm.learner_group._learner.module["default_policy"]
    with torch.no_grad():  # so that it differs from any other at its start, and acts
        module.q_network.layers[-1].weight.mul_(3)
    algorithm.send_weights()
    algorithm.save_to_path(folder / "algorithm")
    yield algorithm, folder
    algorithm.stop()


@pytest.fixture
def modicum(monkeypatch, capsys, tmp_path):
    """Call the program with this command alone; returns exit code, output and errors."""
    point = EntryPoint("watch", "modicum_algorithms.solipsistic.cli:watch", "modicum.commands")
    app = typer.Typer(pretty_exceptions_enable=False)
    app.callback()(lambda: None)  # or a single command would need no name
    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(cli, "added_commands", lambda: {"watch": point})
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["modicum", "watch", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        done = capsys.readouterr()
        return stop.value.code, done.out, done.err.strip()

    return call


def test_the_same_episodes_are_played_as_in_an_evaluation(trained):
    """Observations and all; the algorithm's seed is 5, and its starts are random."""
    algorithm, folder = trained
    requests = algorithm.counter.evaluation_requests(2)
    assert requests[0] == EpisodeRequest(
        algorithm.counter.seed_for("evaluation 0"), None, explore=False
    )
    episodes = algorithm.env_runner_group.local_env_runner.run(requests)
    played = play(folder, episodes=2, seed=5, what="observation", trust=True)
    assert played.returns == tuple(episode.get_return() for episode in episodes)
    assert played.lengths == tuple(map(len, episodes))
    seen = [observation for episode in episodes for observation in episode.get_observations()]
    assert len(seen) == len(played.film) == sum(played.lengths) + 2
    for frame, observation in zip(played.film, seen, strict=True):
        np.testing.assert_array_equal(frame, observation_picture(observation))


def test_the_command_writes_the_environments_pictures(trained, modicum, tmp_path):
    _, folder = trained
    expected = play(folder, episodes=2, seed=1, trust=True)
    out = tmp_path / "new" / "film.gif"
    code, printed, errors = modicum(folder, "--trust", "--out", out, "--seed", 1, "--episodes", 2)
    assert (code, errors) == (0, "")
    assert printed.splitlines() == [
        *(
            f"episode {number}: return {value:g}, {length} steps"
            for number, value, length in zip(
                (1, 2), expected.returns, expected.lengths, strict=True
            )
        ),
        f"film: {out}",
    ]
    frames = frames_of(out)
    assert sum(duration for _, duration in frames) == 20 * len(expected.film)  # 50 a second
    np.testing.assert_allclose(frames[0][0], next(iter(expected.film)), atol=12)


def test_a_gif_keeps_frames_and_times(tmp_path):
    """Frames of 112 rows are doubled; equal ones may be merged, for as long in all."""
    film = Film(2)
    greys = [0, 100, 100, 255]
    for grey in greys:
        film.add(np.full((112, 80, 3), grey, np.uint8))
    film.write(tmp_path / "film.gif")
    shown = [
        (int(frame.mean()), frame.shape) for frame, time in frames_of(tmp_path / "film.gif")
        for _ in range(time // 500)
    ]  # fmt: skip
    assert shown == [(grey, (224, 160, 3)) for grey in greys]


@pytest.mark.parametrize("size", [(224, 160), (225, 161)])
def test_an_mp4_can_be_read(tmp_path, size):
    """Red above, blue below: colours, their places and the number of frames; lossy. Sides are
    made even.
    """
    film = Film(25)
    frame = np.zeros((*size, 3), np.uint8)
    frame[:100, :, 0], frame[100:, :, 2] = 220, 220
    for _ in range(7):
        film.add(frame)
    film.write(tmp_path / "film.mp4")
    reader = cv2.VideoCapture(str(tmp_path / "film.mp4"))
    assert reader.get(cv2.CAP_PROP_FPS) == 25
    read = []
    while (answer := reader.read())[0]:
        read.append(answer[1][:, :, ::-1])
    assert len(read) == 7
    assert read[0].shape == (*(side + side % 2 for side in size), 3)
    for row in (50, 200):
        np.testing.assert_allclose(read[3][row, 80], frame[row, 80], atol=25)


def test_observations_show_their_channels_side_by_side():
    observation = np.array([[[0, 10], [1, 11]], [[2, 12], [3, 13]]], np.uint8)
    expected = [[0, 1, 10, 11], [2, 3, 12, 13]]
    for channel in range(3):
        np.testing.assert_array_equal(observation_picture(observation)[..., channel], expected)
    whole = observation_picture(np.array([[0.0, 1.0], [0.2, 7.0]], np.float32))
    np.testing.assert_array_equal(whole[..., 0], [[0, 255], [51, 255]])
    with pytest.raises(md.InputError, match="are not images"):
        observation_picture(np.zeros(4))


SMALL = {
    "solipsistic": {"model_updates": 2, "policy_iterations": 1, "environment": MNIST_GAME},
    "ppo": {"environment": "CartPole-v1"},
    "dqn": {"environment": PIXEL_CART_POLE, "random_start": True},
}


@pytest.mark.parametrize("method", SMALL)
def test_an_agents_files_hold_what_was_trained_and_play_the_same(ray_cluster, tmp_path, method):
    """PPO's weights are refused by another network."""
    settings = SolipsisticSettings(method=method, episodes=5, **SMALL[method])
    algorithm = build_algorithm(settings, 3)
    if method != "ppo":  # whose epochs take long
        algorithm.train()
    save_agent(tmp_path, algorithm, settings)
    algorithm.save_to_path(tmp_path / "algorithm")
    expected = algorithm.learner_group._learner.module["default_policy"].state_dict()
    expected = {name: expected[name] for name in expected if not name.startswith("target")}
    for location in (tmp_path, tmp_path / "algorithm"):
        found = load_agent(location, trust=True).module.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    ours = play(tmp_path, episodes=2, seed=7, what="picture")
    theirs = play(tmp_path / "algorithm", episodes=2, seed=7, what="picture", trust=True)
    assert (ours.returns, ours.lengths) == (theirs.returns, theirs.lengths)
    algorithm.stop()
    if method == "ppo":
        described = json.loads((tmp_path / "agent.json").read_text())
        described["environment"] = "Acrobot-v1"
        (tmp_path / "agent.json").write_text(json.dumps(described))
        with pytest.raises(md.InputError, match="weights of another network"):
            load_agent(tmp_path)


def test_a_strangers_pickles_are_not_loaded(trained, tmp_path):
    """Every file of RLlib's checkpoint would make a mark when it is loaded."""
    _, folder = trained
    mark = tmp_path / "ran"
    hostile = tmp_path / "hostile"
    shutil.copytree(folder, hostile)
    for path in hostile.rglob("*.pkl"):
        path.write_bytes(b"cos\nmkdir\n(V%b\ntR." % str(mark).encode())
    with pytest.raises(md.InputError, match="whose pickles can run any code"):
        play(hostile)
    (hostile / "agent.json").write_text("{}")
    with pytest.raises(md.InputError, match="holds no saved agent"):
        play(hostile)
    assert not mark.exists()
    with pytest.raises(md.InputError):
        play(hostile / "algorithm", trust=True)
    assert mark.exists()


def test_what_cannot_be_watched_is_refused_in_a_sentence(modicum, trained, tmp_path):
    _, folder = trained
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "rllib_checkpoint.json").write_text(json.dumps({}))
    (tmp_path / "empty").mkdir()
    for arguments, message in [
        (["nowhere"], "checkpoint: there is no folder 'nowhere'"),
        (["empty"], "nor a run (plan.json)"),
        ([broken], "whose pickles can run any code"),
        ([broken, "--trust"], "holds no checkpoint that can be read"),
        ([folder, "--out", "film.avi"], "--out: expected a file that ends in .gif or .mp4"),
        ([folder, "--what", "sound"], "--what: must be one of picture, observation, got 'sound'"),
        (
            [folder, "--trust", "--out", broken / "rllib_checkpoint.json" / "x.gif"],
            "cannot be written",
        ),
    ]:
        code, printed, errors = modicum(*arguments)
        assert (code, printed) == (2, "")
        assert message in errors
        assert len(errors.splitlines()) == 1


def test_the_package_alone_loads_nothing_heavy():
    script = (
        "import sys, modicum_algorithms.solipsistic, modicum_algorithms.solipsistic.cli\n"
        "print(sorted({'torch', 'ray.rllib', 'gymnasium', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    assert solipsistic.SolipsisticConfig is SolipsisticConfig
    with pytest.raises(AttributeError, match="NoSuchConfig"):
        _ = solipsistic.NoSuchConfig
