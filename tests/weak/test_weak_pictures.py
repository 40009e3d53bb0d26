"""Pictures of transition matrices, from a trained and saved model to a file."""

import json
import shutil

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import modicum as md
from modicum_algorithms.weak.checkpoints import find_model, load_model, save_trained
from modicum_algorithms.weak.cli import app
from modicum_algorithms.weak.estimators import IntegratedWeakLearner
from modicum_algorithms.weak.plots import most_voting, of_every_class, transitions_figure

FUNCTIONS, WIDTH = 4, 5


@pytest.fixture(scope="module")
def data():
    """30 rows of five features, four functions and two classes, and four labels."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, WIDTH)).astype(np.float32)
    votes = rng.integers(-1, 2, size=(30, FUNCTIONS))
    return features, np.where(np.arange(30) < 4, np.arange(30) % 2, -1), votes


def fitted(data, **settings):
    features, labels, votes = data
    small = {"hidden_units": 8, "label_network_hidden_units": 7, "max_iterations": 10}
    estimator = IntegratedWeakLearner(**small, random_state=0, **settings)
    return estimator.fit(features, labels, weak_labels=votes)


def test_a_saved_label_network_gives_the_matrices_that_it_gave(tmp_path, data):
    """Averaged over two states, without the coverage vote and the self vote."""
    estimator = fitted(data, depends_on_x=True, latent_states=2)
    network = estimator.label_network_
    with torch.no_grad():  # so that x matters, as after a long training
        list(network.network.children())[-1].weight.normal_()
    save_trained(estimator, tmp_path / "model")
    points = data[0][:6]
    got = load_model(tmp_path / "model").transitions_at(points)
    assert got.shape == (6, 3, FUNCTIONS, 2)
    with torch.no_grad():
        outputs = network.outputs(torch.from_numpy(points))
        matrices, states = (log.exp().numpy() for log in outputs)
    wanted = sum(matrices[..., h] * states[:, h, None, None, None] for h in range(2))
    assert wanted.shape[2] > FUNCTIONS
    assert got == pytest.approx(wanted[:, :, :FUNCTIONS], abs=1e-6)
    assert got.sum(1) == pytest.approx(np.ones((6, FUNCTIONS, 2)))
    assert np.ptp(got, axis=0).max() > 0.1


def test_saved_shared_matrices_are_the_same_at_every_point(tmp_path, data):
    """Logits ln 1, ln 3 over two outcomes are 1/4 and 3/4."""
    estimator = fitted(data, abstain="missing")
    with torch.no_grad():
        logits = torch.tensor([1.0, 3.0]).log()[:, None, None, None]
        estimator.label_network_.logits_VKCH.copy_(logits)
    save_trained(estimator, tmp_path / "model")
    got = load_model(tmp_path / "model").transitions_at(data[0][:3])
    assert got == pytest.approx(np.broadcast_to([[[0.25]], [[0.75]]], (3, 2, FUNCTIONS, 2)))


def test_transitions_of_other_features_or_without_votes_are_refused(data):
    features, labels, _ = data
    with pytest.raises(ValueError, match="features"):
        fitted(data).transitions_at(features[:, :4])
    unvoted = IntegratedWeakLearner(max_iterations=1, random_state=0).fit(features, labels)
    with pytest.raises(md.InputError, match="trained without votes"):
        unvoted.transitions_at(features)


def test_every_heat_map_shows_its_own_matrix():
    transitions = np.random.default_rng(0).dirichlet([1, 1, 1], size=(2, 4, 2))
    transitions = transitions.transpose(0, 3, 1, 2)  # (M, V, K, C)
    votes = np.array([[0, 1, -1, 0], [-1, -1, 1, 0]])
    figure = transitions_figure(
        transitions,
        classes=["no", "yes"],
        functions=["a", "b", "c", "d"],
        points=["first", "second"],
        votes_MK=votes,
    )
    *grid, bar = figure.axes
    assert bar.get_ylabel() == "p(vote | true class)"
    for index, axes in enumerate(grid):
        m, k = divmod(index, 4)
        (image,) = axes.images
        assert image.get_array().data == pytest.approx(transitions[m, :, k])
        assert (image.norm.vmin, image.norm.vmax) == (0, 1)
        # The outline lies around the row of the outcome: abstain is the third.
        (outline,) = axes.patches
        outcome = votes[m, k] if votes[m, k] >= 0 else 2
        assert outline.get_y() == outcome - 0.5
    assert [axes.get_title() for axes in grid[:4]] == ["a", "b", "c", "d"]
    assert [grid[0].get_ylabel(), grid[4].get_ylabel()] == ["first", "second"]
    assert [text.get_text() for text in grid[0].get_yticklabels()] == ["no", "yes", "abstain"]
    assert [text.get_text() for text in grid[4].get_xticklabels()] == ["no", "yes"]


def test_an_abstain_that_is_no_outcome_is_not_outlined():
    transitions = np.full((1, 2, 2, 2), 0.5)
    figure = transitions_figure(
        transitions, ["no", "yes"], ["a", "b"], ["only"], votes_MK=np.array([[-1, 1]])
    )
    assert [len(axes.patches) for axes in figure.axes[:2]] == [0, 1]


def test_functions_of_every_class_in_turn():
    """Function 0 votes class 1 three times, 1 never, 2 class 0 twice, 3 class 1 twice, 4 class 0
    once: the best of class 0, of class 1, the second of each, and the silent one last.
    """
    votes = np.array([[1, -1, 0, 1, -1], [1, -1, 0, 1, -1], [1, -1, -1, -1, 0]])
    assert most_voting(votes, 5) == [2, 0, 4, 3, 1]
    assert most_voting(votes, 2) == [2, 0]


def test_points_of_every_class_in_turn():
    """Classes of rows 0 to 4: 1, 1, 0, 1, 0."""
    labels = np.array([1, 1, 0, 1, 0])
    assert of_every_class(labels, 9) == [2, 0, 4, 1, 3]
    assert of_every_class(labels, 3) == [2, 0, 4]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of which only the second method has transition matrices at every point."""
    folder = tmp_path_factory.mktemp("pictures") / "run"
    space = {
        "method": md.grid("majority_vote", "iwld"),
        "strong_fraction": 0.1,
        "hidden_units": 8,
        "max_iterations": 40,
        "end_model_weight": 1.0,
        "lambda_strong": 1.0,
        "save_model": True,
    }
    study = md.Study("weak", space, seeds=1)
    study.run(folder, runner="local", quiet=True)
    return folder


def test_the_command_finds_the_models_of_a_run(run, tmp_path):
    from matplotlib.image import imread

    out = tmp_path / "deep" / "a.png"
    arguments = ["transitions", str(run), "--out", str(out), "--functions", "3", "--points", "2"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    pixels = imread(out)
    assert min(pixels.shape[:2]) > 300
    assert np.ptp(pixels[..., :3]) > 0.9
    # The model of a run is also a model by itself.
    vector = tmp_path / "a.svg"
    model = str(find_model(str(run)))
    CliRunner().invoke(app, ["transitions", model, "--out", str(vector)], catch_exceptions=False)
    assert vector.read_text().startswith("<?xml")


def test_a_model_of_active_labels_is_drawn_too(tmp_path):
    """It has labels but no fraction of them for the title."""
    space = {
        "method": "iwld",
        "acquisition": "random",
        "rounds": 1,
        "hidden_units": 8,
        "max_iterations": 10,
        "save_model": True,
    }
    md.Study("weak_active", space, seeds=1).run(tmp_path / "run", runner="local", quiet=True)
    out = tmp_path / "a.svg"
    arguments = ["transitions", str(tmp_path / "run"), "--out", str(out), "--functions", "1"]
    CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert out.read_text().startswith("<?xml")


def moved_to_other_data(model, folder):
    """A copy of a saved model whose trial names a data set of one feature and one function."""
    rows = [f"{n},{n},{n},{split}" for split in ("train", "valid", "test") for n in (0, 1)]
    (folder / "other.csv").write_text("\n".join(["label,feature_a,vote_a,split", *rows]))
    copied = shutil.copytree(model, folder / "copied")
    described = json.loads((copied / "model.json").read_text())
    described["config"]["dataset"] = str(folder / "other.csv")
    (copied / "model.json").write_text(json.dumps(described))
    return copied


def test_mistakes_are_told_in_one_sentence(run, tmp_path):
    def call(*arguments):
        return CliRunner().invoke(app, ["transitions", *arguments], catch_exceptions=False)

    with pytest.raises(md.InputError, match=r"neither a saved model .* nor a run"):
        call(str(tmp_path))
    with pytest.raises(md.InputError, match=r"\.png or \.svg"):
        call(str(run), "--out", "a.pdf")
    majority = next(
        path
        for path in sorted((run / "checkpoints").glob("*/*"))
        if json.loads((path / "model.json").read_text())["config"]["method"] == "majority_vote"
    )
    with pytest.raises(md.InputError, match="majority_vote has no transition matrices"):
        call(str(majority))
    with pytest.raises(md.InputError, match="other features or labeling functions"):
        call(str(moved_to_other_data(find_model(str(run)), tmp_path)))
    study = md.Study("weak", {"method": "iwld", "max_iterations": 10}, seeds=1)
    study.run(tmp_path / "unsaved", runner="local", quiet=True)
    with pytest.raises(md.InputError, match="save_model"):
        call(str(tmp_path / "unsaved"))
