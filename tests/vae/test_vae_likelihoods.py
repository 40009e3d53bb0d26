"""Likelihoods of pixels against sums over all values, differences of sigmoids and samples."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.special import expit
from scipy.stats import chisquare

import modicum as md
from modicum_algorithms.vae.likelihoods import (
    LEVELS,
    LOGIT_LIMIT,
    PARAMETERS,
    AutoregressiveLogistic,
    DiscretisedLogistic,
    bernoulli,
    likelihood,
)

VALUES = np.arange(LEVELS)


def bin_probabilities(mean, log_scale):
    """P of all 256 values of one pixel: differences of a logistic's distribution function."""
    edges = (VALUES[:-1] + 0.5) / 127.5 - 1
    below = expit((edges - mean) / math.exp(log_scale))
    return np.diff(np.concatenate([[0.0], below, [1.0]]))


def all_values(mean, log_scale):
    """Log probabilities of all 256 values of one pixel, from the distribution itself."""
    one = torch.ones(LEVELS, 1, 1, 1)
    distribution = DiscretisedLogistic(one * mean, one * log_scale)
    return distribution.log_prob(torch.arange(LEVELS).float().reshape(-1, 1, 1, 1))


MEANS_AND_SCALES = [
    *itertools.product([-1.0, 0.0, 0.37, 1.0], [-6.5, -3.0, -1.0, 1.5]),
    (-3.0, -1.0),
    (2.5, 0.0),
]


@pytest.mark.parametrize(("mean", "log_scale"), MEANS_AND_SCALES)
def test_the_256_values_of_a_pixel_sum_to_one(mean, log_scale):
    assert float(all_values(mean, log_scale).double().exp().sum()) == pytest.approx(1, abs=2e-5)


@pytest.mark.parametrize(("mean", "log_scale"), MEANS_AND_SCALES)
def test_log_prob_equals_the_difference_of_sigmoids_where_that_is_accurate(mean, log_scale):
    naive = bin_probabilities(mean, log_scale)
    accurate = naive > 1e-10
    assert accurate.sum() > 2
    found = all_values(mean, log_scale).double().numpy()
    assert found[accurate] == pytest.approx(np.log(naive[accurate]), rel=1e-4, abs=1e-4)


def test_an_image_has_the_product_of_its_pixels():
    """One number for each image, whatever its channels, height and width."""
    with md.seeded(0):
        mean, log_scale = torch.randn(2, 2, 3, 4), torch.randn(2, 2, 3, 4) - 2
        x = torch.randint(0, LEVELS, (2, 2, 3, 4)).float()
    found = DiscretisedLogistic(mean, log_scale).log_prob(x)
    wanted = [
        sum(
            math.log(bin_probabilities(m, s)[int(v)])
            for m, s, v in zip(
                mean[n].flatten().tolist(),
                log_scale[n].flatten().tolist(),
                x[n].flatten().tolist(),
                strict=True,
            )
        )
        for n in range(2)
    ]
    assert found.tolist() == pytest.approx(wanted, rel=1e-4)


# --- Channels that depend on each other ---

COEFFICIENTS = (0.6, -0.4, 0.9)
MEANS, LOG_SCALES = (0.1, -0.2, 0.05), (-3.5, -4.0, -4.2)


def colour(count, means=MEANS, log_scales=LOG_SCALES):
    """The distribution of `count` images of one pixel."""
    return AutoregressiveLogistic(
        *(
            torch.tensor(numbers).reshape(1, 3, 1, 1).expand(count, 3, 1, 1)
            for numbers in (means, log_scales, COEFFICIENTS)
        )
    )


def conditionals(red, green):
    """P of all values of red, of green given red, of blue given both."""
    a, b, c = COEFFICIENTS
    r, g = red / 127.5 - 1, green / 127.5 - 1
    means = (MEANS[0], MEANS[1] + a * r, MEANS[2] + b * r + c * g)
    return [bin_probabilities(*pair) for pair in zip(means, LOG_SCALES, strict=True)]


def test_a_pixels_triple_sums_to_one_channel_by_channel():
    """Over all blues: P(red, green); its part P(green|red) over all greens: one."""
    for red, green in [(140, 118), (150, 124), (133, 122)]:
        p_red, p_green, p_blue = conditionals(red, green)
        triples = np.stack([np.full(LEVELS, red), np.full(LEVELS, green), VALUES], 1)
        x = torch.from_numpy(triples).float().reshape(-1, 3, 1, 1)
        found = colour(LEVELS).log_prob(x).double().exp().numpy()
        assert found.sum() == pytest.approx(p_red[red] * p_green[green], rel=1e-3)
        assert found / found.sum() == pytest.approx(p_blue, abs=1e-5)


def test_all_triples_together_have_probability_one():
    """Blues are narrow around their mean, so 81 of each channel hold all but 1e-4."""
    window = torch.arange(-40, 41)
    total = 0.0
    for red in range(140 - 70, 140 + 71):
        green_mean = (MEANS[1] + COEFFICIENTS[0] * (red / 127.5 - 1) + 1) * 127.5
        greens = (round(green_mean) + window).repeat_interleave(81)
        blue_mean = (
            MEANS[2]
            + COEFFICIENTS[1] * (red / 127.5 - 1)
            + COEFFICIENTS[2] * (greens / 127.5 - 1)
            + 1
        ) * 127.5
        blues = blue_mean.round().long() + window.repeat(81)
        x = torch.stack([torch.full_like(greens, red), greens, blues], 1).float()
        total += float(colour(len(x)).log_prob(x.reshape(-1, 3, 1, 1)).double().exp().sum())
    assert total == pytest.approx(1, abs=1e-4)


def test_zero_coefficients_make_channels_independent():
    with md.seeded(1):
        mean, log_scale = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2) - 2
        x = torch.randint(0, LEVELS, (4, 3, 2, 2)).float()
    plain = DiscretisedLogistic(mean, log_scale)
    same = AutoregressiveLogistic(mean, log_scale, torch.zeros_like(mean))
    assert same.log_prob(x).equal(plain.log_prob(x))
    with md.seeded(2):
        wanted = plain.sample()
    with md.seeded(2):
        assert same.sample().equal(wanted)


# --- Samples ---


@pytest.mark.parametrize(("mean", "log_scale"), [(0.1, -3.0), (0.9, -1.5), (-1.2, -0.5)])
def test_samples_follow_the_probabilities(mean, log_scale):
    """Chi-square, values of fewer than ten expected samples together."""
    count = 20_000
    one = torch.ones(count, 1, 1, 1)
    with md.seeded(3):
        x = DiscretisedLogistic(one * mean, one * log_scale).sample()
    assert x.equal(x.round())
    found = np.bincount(x.flatten().long().numpy(), minlength=LEVELS)
    expected = all_values(mean, log_scale).double().exp().numpy() * count
    rare = expected < 10
    found = np.append(found[~rare], found[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    assert chisquare(found, expected * count / expected.sum()).pvalue > 1e-3


def test_samples_of_dependent_channels_follow_the_conditional_probabilities():
    """Where a sample falls in its conditional distribution function is uniform."""
    count = 5000
    with md.seeded(4):
        x = colour(count).sample().long().reshape(count, 3).numpy()
    within = np.random.default_rng(5).random((count, 3))
    places = np.empty((count, 3))
    for n, (red, green, _) in enumerate(x):
        for channel, p in enumerate(conditionals(red, green)):
            value = x[n, channel]
            places[n, channel] = p[:value].sum() + within[n, channel] * p[value]
    for channel in range(3):
        counts, _ = np.histogram(places[:, channel], 20, (0, 1))
        assert chisquare(counts).pvalue > 1e-3


def test_sample_shapes_stand_in_front():
    mean = torch.zeros(2, 3, 4, 5)
    for distribution in (
        DiscretisedLogistic(mean, mean),
        AutoregressiveLogistic(mean, mean, mean + 0.5),
        bernoulli(mean),
    ):
        assert distribution.sample().shape == (2, 3, 4, 5)
        samples = distribution.sample((7,))
        assert samples.shape == (7, 2, 3, 4, 5)
        log_probability = distribution.log_prob(samples)
        assert log_probability.shape == (7, 2)
        for row, x in zip(log_probability, samples, strict=True):
            assert torch.allclose(row, distribution.log_prob(x), rtol=1e-6)


# --- Extremes ---


@pytest.mark.parametrize("name", ["discretised_logistic", "autoregressive_logistic"])
def test_extreme_parameters_give_finite_numbers_and_gradients(name):
    extremes = torch.tensor([-1e4, -30.0, -1.0, 0.0, 1.0, 30.0, 1e4])
    pairs = torch.cartesian_prod(extremes, extremes)
    parts = [pairs[:, :1], pairs[:, 1:]]
    if name == "autoregressive_logistic":
        parts.append(pairs[:, :1].clamp(-5, 5))
    parameters = torch.cat([p.reshape(-1, 1, 1, 1).repeat(1, 3, 1, 1) for p in parts], 1)
    parameters.requires_grad_()
    for value in (0.0, 1.0, 127.0, 254.0, 255.0):
        distribution = likelihood(name, parameters)
        log_probability = distribution.log_prob(torch.full((len(pairs), 3, 1, 1), value))
        assert log_probability.isfinite().all()
        assert (log_probability <= 0).all()
        (gradient,) = torch.autograd.grad(log_probability.sum(), parameters)
        assert gradient.isfinite().all()
        x = distribution.sample()
        assert ((x >= 0) & (x <= 255)).all()


def test_bernoulli_probabilities_stay_away_from_zero_and_one():
    """In [0.001, 0.999]: a certain and wrong pixel costs ln 1000 nats, and asks for no more."""
    logits = torch.tensor([-100.0, 100.0, 0.0, math.log(3)]).reshape(4, 1, 1, 1).requires_grad_()
    distribution = bernoulli(logits)
    wrong = distribution.log_prob(torch.tensor([1.0, 0.0, 1.0, 0.0]).reshape(4, 1, 1, 1))
    wanted = [math.log(0.001), math.log(0.001), math.log(0.5), math.log(0.25)]
    assert wrong.tolist() == pytest.approx(wanted, rel=1e-5)
    right = distribution.log_prob(torch.tensor([0.0, 1.0, 0.0, 1.0]).reshape(4, 1, 1, 1))
    wanted = [math.log(0.999), math.log(0.999), math.log(0.5), math.log(0.75)]
    assert right.tolist() == pytest.approx(wanted, rel=1e-4)
    (gradient,) = torch.autograd.grad(wrong.sum(), logits)
    assert gradient.flatten().tolist() == pytest.approx([0, 0, 0.5, -0.75])
    assert pytest.approx(math.log(999)) == LOGIT_LIMIT


def test_bernoulli_samples_and_sums():
    with md.seeded(6):
        x = bernoulli(torch.full((20_000, 1, 1, 1), math.log(3))).sample()
    assert set(x.flatten().tolist()) == {0.0, 1.0}
    # Four standard errors of a share of 0.75.
    assert float(x.mean()) == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 20_000))
    logits = torch.randn(1, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).reshape(16, 1, 2, 2)
    assert float(bernoulli(logits).log_prob(images).exp().sum()) == pytest.approx(1, abs=1e-5)


def test_parameters_are_stacked_along_the_channels():
    """Means first, then log scales, then coefficients, each of all channels."""
    stacked = torch.arange(9.0).reshape(1, 9, 1, 1)
    assert PARAMETERS["autoregressive_logistic"] == 3
    distribution = likelihood("autoregressive_logistic", stacked - 5)
    assert distribution.mean_BCHW.flatten().tolist() == [-5, -4, -3]
    assert distribution.log_scale_BCHW.flatten().tolist() == [-2, -1, 0]
    assert distribution.coefficients_BCHW.flatten().tolist() == [1, 2, 3]
    two = likelihood("discretised_logistic", torch.arange(4.0).reshape(1, 4, 1, 1) - 2)
    assert two.mean_BCHW.flatten().tolist() == [-2, -1]
    assert two.log_scale_BCHW.flatten().tolist() == [0, 1]
