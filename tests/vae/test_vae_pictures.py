"""Pictures of images, samples and reconstructions: every pixel where it belongs."""

import numpy as np
import pytest
import torch

import modicum as md
from modicum_algorithms.vae.likelihoods import (
    AutoregressiveLogistic,
    DiscretisedLogistic,
    bernoulli,
)
from modicum_algorithms.vae.model_spec import ModelSpec
from modicum_algorithms.vae.networks import build_vae
from modicum_algorithms.vae.plots import (
    expected_pixels,
    images_figure,
    reconstructions_figure,
    samples_figure,
)


def drawn(figure):
    (axes,) = figure.axes
    (image,) = axes.images
    return np.asarray(image.get_array())


def test_images_stand_in_their_rows_with_a_line_between():
    """Two rows of two images of 3 x 2 pixels, one line wide: 1 + 3 + 1 + 3 + 1 high, 7 wide."""
    first = np.full((2, 1, 3, 2), 0.25)
    second = np.full((2, 1, 3, 2), 0.75)
    second[1] = 2.0  # beyond white and black
    figure = images_figure({"first": first, "second": second}, title="both")
    canvas = drawn(figure)
    assert canvas.shape == (9, 7)
    assert (canvas[1:4, 1:3] == 0.25).all()
    assert (canvas[1:4, 4:6] == 0.25).all()
    assert (canvas[5:8, 1:3] == 0.75).all()
    assert (canvas[5:8, 4:6] == 1).all()
    lines = np.concatenate([canvas[[0, 4, 8]].ravel(), canvas[:, [0, 3, 6]].ravel()])
    assert len(np.unique(lines)) == 1
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first", "second"]
    assert list(axes.get_yticks()) == [2, 6]
    assert axes.get_title() == "both"


def test_colours_stay_as_they_are():
    image = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    canvas = drawn(images_figure({"only": image}))
    assert canvas.shape == (6, 7, 3)
    assert canvas[1:5, 1:6] == pytest.approx(image[0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    "rows",
    [
        {},
        {"a": np.zeros((2, 1, 3, 3)), "b": np.zeros((3, 1, 3, 3))},
        {"a": np.zeros((2, 3, 3))},
        {"a": np.zeros((2, 2, 3, 3))},
        {"a": np.zeros((0, 1, 3, 3))},
    ],
)
def test_rows_that_do_not_fit_are_refused(rows):
    with pytest.raises(md.InputError, match=r"rows: must hold images of one shape"):
        images_figure(rows)


def test_expected_pixels_of_every_likelihood():
    """σ(0) = 1/2 and σ(ln 3) = 3/4; μ = -1, 0 and 1 are black, the middle and white.

    With a = 1, b = 0 and c = -1: red 0.5 gives green 0.5 + 0.5 = 1, which gives blue 0 - 1 = -1.
    """
    logits = torch.tensor([1.0, 3.0]).log()
    assert expected_pixels(bernoulli(logits.reshape(1, 1, 1, 2))).flatten().tolist() == (
        pytest.approx([0.5, 0.75])
    )
    mean = torch.tensor([-1.0, 0.0, 1.0, 3.0]).reshape(1, 1, 2, 2)
    plain = DiscretisedLogistic(mean, torch.zeros_like(mean))
    assert expected_pixels(plain).flatten().tolist() == pytest.approx([0, 0.5, 1, 1])
    mean = torch.tensor([0.5, 0.5, 0.0]).reshape(1, 3, 1, 1)
    coefficients = torch.tensor([1.0, 0.0, -1.0]).reshape(1, 3, 1, 1)
    coupled = AutoregressiveLogistic(mean, torch.zeros_like(mean), coefficients)
    assert expected_pixels(coupled).flatten().tolist() == pytest.approx([0.75, 1, 0])


@pytest.mark.parametrize(
    ("shape", "likelihood", "highest"),
    [((1, 4, 4), "bernoulli", 1), ((3, 4, 4), "autoregressive_logistic", 255)],
)
def test_a_model_draws_what_it_reconstructs_and_samples(shape, likelihood, highest):
    spec = ModelSpec(shape=shape, likelihood=likelihood, latent_size=2, hidden_units=8)
    model, other = build_vae(spec, seed=0), build_vae(spec, seed=1)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, highest + 1, (3, *shape), generator=generator, dtype=torch.uint8)
    canvas = drawn(reconstructions_figure({"one": model, "other": other}, images))
    assert canvas[1:5, 1:5].squeeze() == pytest.approx(
        images[0].permute(1, 2, 0).squeeze().numpy() / highest
    )
    with torch.no_grad():
        again = expected_pixels(other.decoder(other.encoder(images.float()).mean))
    assert canvas[11:15, 6:10].squeeze() == pytest.approx(again[1].permute(1, 2, 0).squeeze())
    before = torch.random.get_rng_state()
    first, second, third = (drawn(samples_figure(model, 2, 5, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.shape[:2] == (2 * 5 + 1, 5 * 5 + 1)
    assert (first == second).all()
    assert (first != third).any()
